"""How the web texts of a decided run fared, where it is known which of them fit their image.

The source says so: `X.truth.jsonl` beside `X.jsonl` (`data.readers`), `kind` and `match` of each text, which come along
in the rows' `meta`. Nothing is decided by it. A row counts once, with the best of its web texts.
"""

import json
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
from jaxtyping import Bool, Float

from capfilt.clean.ledger import Ledger
from capfilt.clean.policies import Policy
from capfilt.clean.tally import blocks, decided, floats, marks
from capfilt.report.clean import KindOfText, Truth

COLUMNS = ("id", "decision", "itm_web", "itc_web")
MARK = '"truth": {'  # as intake writes it; what lacks it need not be parsed
WEIGHTS = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0)  # that ITC is tried with beside ITM
POINTS = 100  # of a curve


def truth_of(out: Path | str) -> Truth | None:
    """What is known of the web texts of the run in `out`; None where that is nothing.

    Raises DataError where nothing was decided yet.
    """
    decided(Path(out))
    ledger = Ledger(out)
    ids, codes, kinds = _known(ledger)
    if not len(ids):
        return None
    fits = np.array([fit for _, fit in kinds], bool)
    texts, ruled, kept = (np.zeros(len(kinds), np.int64) for _ in range(3))
    judged: list[np.ndarray] = []  # (3, n) of each block: ITM, ITC, whether the text fits
    for table in blocks(ledger.out, COLUMNS):
        found = marks(table["id"])
        at = np.searchsorted(ids, found).clip(max=len(ids) - 1)
        here = ids[at] == found
        code, table = codes[at[here]], table.filter(here)
        for sums, which in (
            (texts, np.ones(len(code), bool)),
            (ruled, table["rule"].is_valid().to_numpy()),
            (kept, pc.equal(table["decision"], "keep").to_numpy()),
        ):
            sums += np.bincount(code[which], minlength=len(kinds))
        scores = np.stack([floats(table["itm_web"]), floats(table["itc_web"]), fits[code]])
        judged.append(scores[:, ~np.isnan(scores).any(0)])
    itm, itc, right = np.concatenate(judged, axis=1)
    counted = zip(kinds, texts.tolist(), ruled.tolist(), kept.tolist(), strict=True)
    told = [KindOfText(kind, fit, *numbers) for (kind, fit), *numbers in counted]
    told.sort(key=lambda one: (not one.fits, -one.texts, one.kind))
    return Truth(told, *_heads(itm, itc, right.astype(bool)))


def auc(scores: Float[np.ndarray, "n"], right: Bool[np.ndarray, "n"]) -> float | None:
    """Chance that a right text scores above a wrong one, ties counting half; None without one of either."""
    good, bad = np.sort(scores[right]), np.sort(scores[~right])
    if not len(good) or not len(bad):
        return None
    below = np.searchsorted(bad, good, "left").mean() + np.searchsorted(bad, good, "right").mean()
    return float(below / 2 / len(bad))


def _known(ledger: Ledger) -> tuple[np.ndarray, np.ndarray, list[tuple[str, bool]]]:
    """Of rows of known truth: marks of their ids, rising; their kind's place among the kinds; the kinds."""
    kinds: dict[tuple[str, bool], int] = {}
    ids: list[int] = []
    codes: list[int] = []
    for table in ledger.tables("rows", ["id", "meta"]):
        table = table.filter(pc.match_substring(table["meta"], MARK))
        if not len(table):
            continue
        for row, meta in zip(marks(table["id"]).tolist(), table["meta"].to_pylist(), strict=True):
            said = json.loads(meta).get("truth")
            if isinstance(said, dict) and isinstance(said.get("match"), bool):  # else a column of that name
                kind = str(said.get("kind") or "unknown"), said["match"]
                ids.append(row)
                codes.append(kinds.setdefault(kind, len(kinds)))
    order = np.argsort(np.array(ids, np.uint64))
    return np.array(ids, np.uint64)[order], np.array(codes, np.int64)[order], list(kinds)


def _heads(
    itm: Float[np.ndarray, "n"], itc: Float[np.ndarray, "n"], right: Bool[np.ndarray, "n"]
) -> tuple[dict[str, float], float | None, dict[str, list[tuple[float, float]]]]:
    """AUC of each head and of the best weighing of both, that weight, the curves; nothing where all texts are alike."""
    if right.all() or not right.any():
        return {}, None, {}
    joint = {weight: Policy(score="joint", weight=weight).scored(itm, itc) for weight in WEIGHTS}
    best = max(WEIGHTS, key=lambda weight: auc(joint[weight], right))  # type: ignore[arg-type, return-value]
    heads = {"ITM": itm, "ITC": itc, "both": joint[best]}
    areas = {name: area for name, scores in heads.items() if (area := auc(scores, right)) is not None}
    return areas, best, {name: _curve(scores, right) for name, scores in heads.items()}


def _curve(scores: Float[np.ndarray, "n"], right: Bool[np.ndarray, "n"]) -> list[tuple[float, float]]:
    """(share of wrong texts at or above a bar, share of right ones), from (0, 0) to (1, 1)."""
    bars = np.unique(scores)[::-1]
    bars = bars[np.unique(np.linspace(0, len(bars) - 1, min(POINTS, len(bars))).round().astype(int))]
    shares = [1 - np.searchsorted(np.sort(scores[which]), bars) / which.sum() for which in (~right, right)]
    return [(0.0, 0.0), *zip(*(share.tolist() for share in shares), strict=True)]
