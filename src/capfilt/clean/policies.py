"""What becomes of rows, from their scores alone (BLIP §4.2 and what its successors found): arrays in, arrays out.

| policy | web text stays | synthetic text |
|---|---|---|
| `blip` | if it passes | beside it or instead, if it passes: the paper's union |
| `replace-low` | in the best share of its group (arXiv 2307.10350; .3 unless said) | in all others, if it passes |
| `best` | if it passes and no better one does | if it passes and is better |
| `both` | if it or the synthetic one passes | if it or the web text passes |
| `keep-web` | if it passes | never |

A text passes at its bar or above. Of several web texts each is judged; of several candidates the best stands for all.
N rows, T texts of all rows, one behind another.
"""

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float32, Int
from pyarrow import compute

from capfilt.clean.columns import DECISIONS, FLAGS, ROWS, SCORES, TEXTS
from capfilt.clean.limits import beyond, limit_of
from capfilt.clean.rules import whole
from capfilt.errors import CheckFailed, ConfigError

Name = Literal["blip", "replace-low", "best", "both", "keep-web"]
Head = Literal["itm", "itc", "joint"]
DECIDED = DECISIONS.append(pa.field("kind", pa.string()))  # what the reason comes to, in one word that can be counted
NOTHING = -np.inf  # the score of a text that is empty or was not judged: it passes no bar
WORDS = ("keep", "replace", "drop", "failed")
BEST_SHARE = 0.3
READ = {  # what `decide` reads of rows (and of `Policy.groups_in`) and scores
    "rows": ["id", "key", "source", "texts", "failed", "error"],
    "scores": [name for name in SCORES.names if name != "logp"],
}
READ_FIRST = {"rows": ["id", "texts", "failed"], "scores": ["id", "itm_web", "itc_web", "failed"]}  # and `web_scores`


@dataclass(frozen=True)
class Policy:
    """One way to decide.

    threshold: the bar: a probability for `itm` and `joint`, a cosine for `itc`.
    top:       instead, the bar lies where this share of the rows' (best) web texts passes, rounded up; ties pass.
               The synthetic texts meet that same bar, of `replace-low` always `threshold`.
    by:        a column of the rows, or of the data: each of its values is a group with a bar of its own for `top`.
    score:     the head of the filter that is asked; `joint` asks both (`clean.decide.joint_score`).
    weight:    how much the cosine counts in `joint`; 1 / temperature trusts both heads alike.
    margin:    a synthetic text must lie this much above the bar, at most at 1.
    drop:      rows by what scorers said of them: `watermark>0.8`, `aesthetic<4`.
    """

    name: Name = "blip"
    threshold: float = 0.5
    top: float | None = None
    by: str | None = None
    score: Head = "itm"
    weight: float = 0.0
    margin: float = 0.0
    drop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for value, field, known in ((self.name, "name", Name), (self.score, "score", Head)):
            if value not in get_args(known):
                raise ConfigError(f"policy.{field}={value!r} is not one of {', '.join(get_args(known))}")
        if self.name == "replace-low" and self.top is None:
            object.__setattr__(self, "top", BEST_SHARE)
        if self.top is not None and not 0 < self.top <= 1:
            raise ConfigError(f"policy.top={self.top}: a share lies above 0 and at most at 1")
        if self.by and self.top is None:
            raise ConfigError(f"policy.by={self.by!r}: groups have bars of their own only with a share; give top too")
        if bool(self.weight) != (self.score == "joint"):
            raise ConfigError(f"policy.weight={self.weight}: score=joint needs a weight, score={self.score} heeds none")
        for text in self.drop:
            limit_of(text)
        if not math.isfinite(self.threshold):
            raise ConfigError(f"policy.threshold={self.threshold}: a bar is a finite number")

    @property
    def groups_in(self) -> list[str]:
        """The column of the rows that groups are told from, if there are any."""
        return [self.by if self.by in ROWS.names else "meta"] if self.by else []

    def scored(self, itm: Float32[np.ndarray, "T"], itc: Float32[np.ndarray, "T"]) -> Float32[np.ndarray, "T"]:
        """What is compared, of both heads; NaN where a number that it needs is missing."""
        if self.score != "joint":
            return itm if self.score == "itm" else itc
        odds, bet = itm.astype(float), itc.astype(float)
        against = np.exp(np.clip(self.weight * (0.5 - bet), -700, 700))
        return (odds / (odds + (1 - odds) * against)).astype(np.float32)

    def bars(self, web: float) -> tuple[np.float32, np.float32]:
        """Where web and synthetic texts must reach, in the scores' own precision, if the web texts' bar is `web`."""
        synthetic = self.threshold if self.name == "replace-low" else web
        return np.float32(web), np.float32(min(1.0, synthetic + self.margin) if self.margin else synthetic)

    def stay(self, web: "_Side", synthetic: "_Side") -> tuple[Bool[np.ndarray, "N"], Bool[np.ndarray, "N"]]:
        """Whose texts stay, of texts that have met their bars."""
        w, s = web.passes, synthetic.passes
        if self.name == "keep-web":
            return w, np.zeros_like(s)
        if self.name == "replace-low":
            return w, s & ~w
        if self.name == "both":
            return (w | s) & web.there, (w | s) & synthetic.there
        if self.name == "best":
            better = s & ~(w & (web.score >= synthetic.score))
            return w & ~better, better
        return w, s


class _Side:
    """Web or synthetic texts of N rows."""

    def __init__(self, policy: Policy, ids: pa.Array, texts: pa.Array, itm: pa.Array, itc: pa.Array) -> None:
        lengths = _lengths(texts)
        self.texts = compute.list_flatten(texts)
        self.itm, self.itc = (_numbers(ids, lengths, numbers) for numbers in (itm, itc))
        self.row = np.repeat(np.arange(len(lengths)), lengths)
        self.empty = _mask(compute.equal(compute.utf8_trim_whitespace(self.texts), ""))
        scores = policy.scored(self.itm, self.itc)
        self.scores = np.where(np.isnan(scores) | self.empty, np.float32(NOTHING), scores)
        there = lengths > 0
        self.score = np.full(len(lengths), NOTHING, np.float32)  # of each row's best
        self.score[there] = np.maximum.reduceat(self.scores, (np.cumsum(lengths) - lengths)[there])
        self.best = np.full(len(lengths), -1)
        first = np.flatnonzero(self.scores == self.score[self.row])[::-1]  # the earlier of equals is written last
        self.best[self.row[first]] = first
        self.passed = np.zeros(len(self.row), bool)  # of each text
        self.passes = np.zeros(len(lengths), bool)  # of each row
        self.there = np.zeros(len(lengths), bool)  # rows with a text that was judged, and is not out

    def meet(self, bar: Float32[np.ndarray, "N"], heard: Bool[np.ndarray, "N"]) -> None:
        """Finds out who passes, of the rows that are `heard`."""
        self.passed = (self.scores >= bar[self.row]) & heard[self.row]
        self.passes = (self.score >= bar) & heard
        self.there = (self.score > NOTHING) & heard

    def of_best(self, values: pa.Array) -> pa.Array:
        """(T) → (N), null where a row has no text."""
        return values.take(pa.array(self.best, mask=self.best < 0))

    def phrase(self, name: str, tail: pa.Array, rule: pa.Array | None = None) -> pa.Array:
        """What the filter had to say, a line for each of N rows.

        tail: what follows the score. rule: what puts the row's texts out, in words, else null.
        """
        number = np.clip(np.floor(np.maximum(self.score, -1) * 1000.0 + 0.001).astype(int), -1000, 1000) + 1000
        told = compute.binary_join_element_wise(
            f"the filter gave the {name} text ", _DIGITS.take(pa.array(number)), tail, ""
        )
        odd = [f"there is no {name} text", f"the {name} text is empty", f"the filter gave the {name} text no score"]
        empty = np.append(self.empty, False)[self.best]  # the row without a text has its best at -1
        case = np.select([self.best < 0, empty, self.score == NOTHING], [0, 1, 2], -1)
        told = compute.coalesce(pa.array(odd).take(pa.array(case, mask=case < 0)), told)
        if rule is None:
            return told
        out = compute.binary_join_element_wise(f"the {name} text is out (", rule, ")", "")
        return compute.coalesce(compute.if_else(pa.array(self.best < 0), _NO_TEXT, out), told)


_DIGITS = pa.array([f"{i / 1000:.3f}" for i in range(-1000, 1001)])  # cut there: 0.4996 must not read as 0.500


class _Judged:
    """N rows, laid side by side with their scores and flags."""

    def __init__(self, policy: Policy, rows: pa.Table, scores: pa.Table, flags: pa.Table | None) -> None:
        flags, scores = _of_same_rows(rows, flags), _beside(rows, scores)
        self.rule, self.told = _one(flags["rule"]), _one(flags["told"])
        row_out = whole(self.rule)
        self.text_out = _mask(compute.is_valid(self.rule)) & ~_mask(row_out)
        sides = {"web": _one(rows["texts"]), "synthetic": _one(scores["synthetic"])}
        self.web, self.synthetic = (
            _Side(policy, _one(rows["id"]), texts, _one(scores[f"itm_{name}"]), _one(scores[f"itc_{name}"]))
            for name, texts in sides.items()
        )
        unseen = _lengths(_one(scores["itm_web"])) + _lengths(_one(scores["itm_synthetic"])) == 0
        closed = (  # the first that holds closes the row
            (_one(rows["failed"]), _one(rows["error"])),
            (compute.if_else(row_out, self.rule, _NO_TEXT), self.told),
            (_one(scores["failed"]), _one(scores["error"])),
            beyond(policy.drop, _one(scores["extra"])),
            (compute.if_else(pa.array(unseen), "not_scored", _NO_TEXT), _NOT_SCORED),
        )
        self.kind = compute.coalesce(*(kind for kind, _ in closed))
        self.why = compute.coalesce(
            *(compute.binary_join_element_wise(kind, compute.coalesce(told, ""), ": ") for kind, told in closed)
        )
        self.heard = _mask(compute.is_null(self.kind))
        readable, ruled, scored, within = (_mask(compute.is_null(kind)) for kind, _ in closed[:4])
        self.flagged = readable & (~ruled | (scored & ~within))
        self.groups = _groups(policy, rows).dictionary_encode()


_NO_TEXT = pa.scalar(None, pa.string())
_NOT_SCORED = pa.scalar("no model has looked at this row yet; run the same command again")


def web_scores(
    policy: Policy, rows: pa.Table, scores: pa.Table, flags: pa.Table | None = None
) -> dict[str, np.ndarray]:
    """Group → scores (float32) of its rows' best web texts, those that a bar by `policy.top` is placed among.

    Arguments as `decide`, of which it needs less: `READ_FIRST`.
    """
    flags, scores = _of_same_rows(rows, flags), _beside(rows, scores)
    web = _Side(policy, *map(_one, (rows["id"], rows["texts"], scores["itm_web"], scores["itc_web"])))
    counted = web.score > NOTHING
    for column in (rows["failed"], flags["rule"], scores["failed"]):
        counted &= _mask(compute.is_null(_one(column)))
    groups = _groups(policy, rows).dictionary_encode()
    at, found = groups.indices.to_numpy()[counted], web.score[counted]
    order = np.argsort(at, kind="stable")
    cuts = np.searchsorted(at[order], np.arange(1, len(groups.dictionary)))
    parts = np.split(found[order], cuts) if len(groups.dictionary) else []
    return dict(zip(groups.dictionary.to_pylist(), parts, strict=True))


def bars(policy: Policy, found: Iterable[Mapping[str, np.ndarray]]) -> dict[str, float]:
    """Group → the bar of its web texts, from the `web_scores` of all rows; only of groups that have any.

    Raises ConfigError where `policy.top` has no score, or `policy.by` no value, to go by.
    """
    if policy.top is None:
        return {"": policy.threshold}
    gathered = defaultdict(list)
    for part in found:
        for group, scores in part.items():
            gathered[group].append(scores)
    if policy.by and gathered and set(gathered) == {""}:
        raise ConfigError(f"policy.by={policy.by!r}: no row has a value there; rows have `source`, `licence` and meta")
    return {
        group: _of_share(np.concatenate(parts), policy.top)
        for group, parts in sorted(gathered.items())
        if any(map(len, parts))
    }


def decide(
    policy: Policy, bars: Mapping[str, float], rows: pa.Table, scores: pa.Table, flags: pa.Table | None = None
) -> pa.Table:
    """DECIDED, a row for each of `rows`.

    bars:   of `bars`; a group that is not among them has the bar `policy.threshold`.
    rows:   ROWS, or what `READ` names of them.
    scores: SCORES, found by id; what is missing is `not_scored`.
    flags:  FLAGS of the same rows in the same order, if there are any.

    Raises CheckFailed for flags of other rows, and for scores of other texts than the rows have.
    """
    judged = _Judged(policy, rows, scores, flags)
    web, synthetic = judged.web, judged.synthetic
    at = judged.groups.indices.to_numpy()
    limits = [policy.bars(bars.get(group, policy.threshold)) for group in judged.groups.dictionary.to_pylist()]
    limit = np.array(limits, np.float32).reshape(-1, 2)
    web.meet(limit[at, 0], judged.heard & ~judged.text_out)
    synthetic.meet(limit[at, 1], judged.heard)
    keep_web, keep_synthetic = policy.stay(web, synthetic)
    decision = np.select([keep_web, keep_synthetic, judged.heard | judged.flagged], [0, 1, 2], 3)
    tails = [_tail(side, at, bars) for side, bars in zip((web, synthetic), limit.T, strict=True)]
    best = [side.of_best(side.texts) for side in (web, synthetic)]
    text = compute.if_else(pa.array(keep_web), best[0], compute.if_else(pa.array(keep_synthetic), best[1], _NO_TEXT))
    made = {
        **{name: rows[name] for name in ("id", "key", "source")},
        "decision": pa.array(WORDS).take(pa.array(decision)),
        "reason": compute.coalesce(judged.why, _reason(policy, judged, *tails)),
        "text": text,
        "texts": _kept(web, synthetic, keep_web, keep_synthetic, one=policy.name == "best"),
        "web_text": best[0],
        "synthetic_text": best[1],
        **{
            f"{head}_{name}": side.of_best(_or_null(getattr(side, head)))
            for head in ("itm", "itc")
            for name, side in (("web", web), ("synthetic", synthetic))
        },
        "score_web": _or_null(web.score),
        "score_synthetic": _or_null(synthetic.score),
        "kind": compute.coalesce(judged.kind, pa.array(_KINDS).take(pa.array(2 * web.passes + synthetic.passes))),
    }
    return pa.table([made[name] for name in DECIDED.names], schema=DECIDED)


_KINDS = ("none_passed", "synthetic_passed", "web_passed", "both_passed")


def _tail(side: _Side, at: Int[np.ndarray, "N"], bars: Float32[np.ndarray, "groups"]) -> pa.Array:
    """How each row's score compares, in words. at: the row's group."""
    told = pa.array([f" ({sign} {bar:.3f})" for bar in bars for sign in "<≥"], pa.string())
    return told.take(pa.array(2 * at + side.passes))


def _reason(policy: Policy, judged: _Judged, web_tail: pa.Array, synthetic_tail: pa.Array) -> pa.Array:
    web, synthetic = judged.web, judged.synthetic
    rule = compute.binary_join_element_wise(judged.rule, compute.coalesce(judged.told, ""), ": ")
    rule = compute.if_else(pa.array(judged.text_out), rule, _NO_TEXT)
    told = [web.phrase("web", web_tail, rule)]
    if policy.name != "keep-web":
        told.append(synthetic.phrase("synthetic", synthetic_tail))
    if policy.name == "best":
        told.append(compute.if_else(pa.array(web.passes & synthetic.passes), "the better one stays", _NO_TEXT))
    if policy.name == "both":
        alone = (web.passes ^ synthetic.passes) & web.there & synthetic.there
        told.append(compute.if_else(pa.array(alone), "the other stays beside it", _NO_TEXT))
    return compute.binary_join_element_wise(*told, "; ", null_handling="skip")


def _kept(web: _Side, synthetic: _Side, keep_web: np.ndarray, keep_synthetic: np.ndarray, one: bool) -> pa.Array:
    """Lists of N rows: the best web text, the others that passed (none if `one`), the best synthetic one."""
    at = np.flatnonzero((web.passed | (web.best[web.row] == np.arange(len(web.row)))) & keep_web[web.row])
    first = web.best[web.row[at]] == at
    if one:
        at, first = at[first], first[first]
    also = np.flatnonzero(keep_synthetic)
    row = np.concatenate([web.row[at], also])
    place = np.concatenate([at, len(web.texts) + synthetic.best[also]])
    rank = np.concatenate([np.where(first, 0, 1), np.full(len(also), 2)])
    order = np.lexsort((place, rank, row))
    ends = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=len(keep_web)))])
    texts = pa.concat_arrays([web.texts, synthetic.texts]).take(pa.array(place[order]))
    return pa.ListArray.from_arrays(pa.array(ends, pa.int32()), texts).cast(TEXTS)


def _groups(policy: Policy, rows: pa.Table) -> pa.Array:
    """The group of each row, "" without one."""
    if not policy.by:
        return pa.repeat("", len(rows))
    if policy.by in ROWS.names:
        return compute.coalesce(_one(rows[policy.by]).cast(pa.string()), "")
    values = (json.loads(meta or "{}").get(policy.by) for meta in rows["meta"].to_pylist())
    return pa.array(["" if value is None else str(value) for value in values], pa.string())


def _of_share(scores: Float32[np.ndarray, "N"], share: float) -> float:
    """The lowest score of the best `share`, rounded up to whole texts."""
    least = len(scores) - max(1, math.ceil(share * len(scores) - 1e-9))  # .07 · 100 is a little more than 7
    return float(np.partition(scores, least)[least])


def _of_same_rows(rows: pa.Table, flags: pa.Table | None) -> pa.Table:
    if flags is None:
        return pa.table([rows["id"], *(pa.nulls(len(rows), pa.string()) for _ in FLAGS.names[1:])], schema=FLAGS)
    if not _one(flags["id"]).equals(_one(rows["id"])):
        raise CheckFailed("flags and rows do not name the same rows in the same order; make the flags anew")
    return flags


def _beside(rows: pa.Table, scores: pa.Table) -> pa.Table:
    """The scores of each row, nulls where there are none."""
    if scores["id"].equals(rows["id"]):
        return scores
    return scores.combine_chunks().take(compute.index_in(_one(rows["id"]), _one(scores["id"])))


def _numbers(ids: pa.Array, lengths: Int[np.ndarray, "N"], lists: pa.Array) -> Float32[np.ndarray, "T"]:
    """Scores of rows of so many texts, end to end; NaN for texts of a row without any."""
    own = _lengths(lists)
    wrong = np.flatnonzero((own > 0) & (own != lengths))
    if len(wrong):
        row = wrong[0]
        raise CheckFailed(f"row {ids[row].as_py()}: {own[row]} scores of {lengths[row]} texts; score its shard anew")
    found = np.full(lengths.sum(), np.nan, np.float32)
    found[np.repeat(own > 0, lengths)] = compute.list_flatten(lists).to_numpy(zero_copy_only=False)
    return found


def _lengths(lists: pa.Array) -> Int[np.ndarray, "N"]:
    return compute.coalesce(compute.list_value_length(lists), 0).to_numpy(zero_copy_only=False).astype(np.int64)


def _mask(values: pa.Array) -> Bool[np.ndarray, "N"]:
    return compute.coalesce(values, False).to_numpy(zero_copy_only=False)


def _or_null(values: Float32[np.ndarray, "N"]) -> pa.Array:
    return pa.array(values, mask=~np.isfinite(values))


def _one(column: pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks()
