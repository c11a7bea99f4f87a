"""Rules before models: what is thrown out of a collection for what was measured of it, and in which words.

| rule | the row |
|---|---|
| `opt_out` | carries a column that says no: `opt_out`, `noai`, ... or robots' words (`OPT_OUT`, `ROBOTS`) |
| `licence` | has none of the licences asked for |
| `too_small`, `odd_aspect` | has too short a side, or sides that differ too much |
| `blank` | shows nothing: in no colour its levels differ much |
| `duplicate` | has the image of another row, or one that looks the same; one of them stands for all |
| `text_short`, `text_long` | has a web text of too few or many words |
| `text_name` | has a web text that is but the name of a file, an address, or what a camera notes |
| `text_language` | has a web text in a language that was not asked for |
| `text_boilerplate` | has a web text that stands in too many rows |

A row carries the first that it breaks. Those named `text_` put out its web texts, all of them; the image stays, and a
captioner may still write its text (`whole`). A row one of whose web texts is fine carries none of them.
"""

import functools
import hashlib
import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from capfilt.clean.alike import near, same, stands
from capfilt.clean.columns import FLAGS
from capfilt.errors import ConfigError
from capfilt.inputs.images import ODD_ASPECT, TOO_SMALL_PX

NEEDS = ("id", "key", "texts", "licence", "meta", "failed", "sha256", "width", "height", "looks", "spread")
TEXT = "text_"  # begins the names of rules that leave the image in
OPT_OUT = ("opt_out", "optout", "opted_out", "noai", "no_ai", "noimageai")  # columns, if not empty, 0, false or no
ROBOTS = ("x_robots_tag", "robots")  # columns of words, of which any of the next says no
NO = ("noai", "noimageai", "noindex", "noimageindex")
SURE = 0.5  # probability from which a text is taken to be in a language
_ASKED = r"(?i)\"(" + "|".join((*OPT_OUT, *ROBOTS)).replace("_", "[-_ ]") + r")\":"
_LETTERS = re.compile(r"[^\W\d_]+")
_SUFFIX = r"\.(jpe?g|png|gif|webp|bmp|tiff?|avif|heic)"
_NAME = (  # of words in front of a suffix it is the name of a file too, but says something
    rf"(?i)^\s*((https?://|www\.)\S+|\S+{_SUFFIX}|screen ?shot\b.*{_SUFFIX}"
    r"|.*\bf/?\d+(\.\d+)?\b.*\b(1/\d+ ?s(ec)?|iso ?\d+)\b.*"
    rf"|(img|dsc[a-z]?|pict|pxl|mvimg|photo|image|screen ?shot)?[-_ ]?\d[-_. \d]*({_SUFFIX})?)\s*$"
)
_FACTS = pa.schema(
    [
        ("key", pa.string()),
        ("failed", pa.bool_()),
        ("sha256", pa.string()),
        ("looks", pa.uint64()),
        ("area", pa.int64()),
        ("said", pa.list_(pa.uint64())),  # hashes of its web texts, null for one that is out
    ]
)


@dataclass(frozen=True)
class Rules:
    """The bars. The defaults take out what no model could use; 0, or nothing, switches a rule off.

    min_px, max_aspect:   the short side, and how many times it the long one may be.
    min_spread:           standard deviation of the levels, of 127.5, in the colour where it is largest; a photo has 40
        to 80.
    min_words, max_words: of a web text, what is between spaces; 256 is CC12M's.
    min_chars:            of a web text; two are a sentence in Chinese.
    boilerplate_rows, boilerplate_share: a web text, numbers and case aside, may stand in so many rows, or in that share
        of all, whichever is more.
    names:                whether texts that are but names of files, addresses or cameras' notes are out.
    languages:            codes of two letters (ISO 639-1); others are out (extra `lang`). Unsure ones stay.
    require_licence:      those allowed, whatever their case; `any` allows all that name one.
    opt_out:              whether rows that say no are left out.
    duplicates:           `exact`: the same bytes; `alike`: perceptual hashes that differ in at most `alike_bits` of 64.
    """

    min_px: int = TOO_SMALL_PX
    max_aspect: float = ODD_ASPECT
    min_spread: float = 2.0
    min_words: int = 1
    max_words: int = 256
    min_chars: int = 2
    boilerplate_rows: int = 100
    boilerplate_share: float = 0.001
    names: bool = True
    languages: tuple[str, ...] = ()
    require_licence: tuple[str, ...] = ()
    opt_out: bool = True
    duplicates: Literal["exact", "alike", "off"] = "exact"
    alike_bits: int = 4

    def __post_init__(self) -> None:
        bars = (self.min_px, self.max_aspect, self.min_spread, self.min_words, self.max_words, self.min_chars)
        if min(*bars, self.boilerplate_rows) < 0 or not 0 <= self.boilerplate_share <= 1:
            raise ConfigError(f"{self}: bars lie at 0 (off) or above, boilerplate_share at most at 1")
        if self.duplicates not in ("exact", "alike", "off") or not 0 <= self.alike_bits <= 12:
            raise ConfigError(
                f"duplicates={self.duplicates!r}, alike_bits={self.alike_bits}: exact, alike or off; 0 to 12 bits"
            )


def alone(rows: pa.Table, rules: Rules) -> pa.Table:
    """ROWS → FLAGS by the rules that look at one row alone. Rows that failed break none.

    Raises ConfigError where languages are asked for and cannot be told.
    """
    return _alone(rows, rules)[0].table()


def flags(tables: Iterable[pa.Table], rules: Rules) -> pa.Table:
    """ROWS of a whole collection (`NEEDS` of their columns) → its FLAGS, in their order; by all rules.

    Held in memory are some 200 bytes a row, not the tables. Raises as `alone`.
    """
    found, facts = [FLAGS.empty_table()], [_FACTS.empty_table()]
    for rows in tables:
        marks, out = _alone(rows, rules)
        found.append(marks.table())
        facts.append(_facts(rows, out))
    return across(pa.concat_tables(found), pa.concat_tables(facts), rules)


def across(broken: pa.Table, facts: pa.Table, rules: Rules) -> pa.Table:
    """Adds to the FLAGS of a whole collection what only shows across its rows: duplicates, boilerplate.

    Rows that are out already stand for nothing and count for nothing: among blank images there are no duplicates.
    """
    marks = _Marks.of(broken, facts["failed"])
    group = _duplicates(marks, facts, rules)
    if rules.boilerplate_rows:
        _boilerplate(marks, facts, rules)
    return marks.table(group)


def whole(rule: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Of FLAGS' column `rule`, where it takes out the row, image and all; never null."""
    return pc.fill_null(pc.invert(pc.starts_with(rule, TEXT)), False)


class _Marks:
    """The rule that each of N rows breaks, and the words. The first counts, but any outdoes one about the text."""

    def __init__(self, ids: pa.ChunkedArray, usable: np.ndarray) -> None:
        self.ids, self.usable = ids, usable  # usable: image and all are still in
        self.rule, self.told = (np.full(len(usable), None, object) for _ in range(2))

    @classmethod
    def of(cls, broken: pa.Table, failed: pa.ChunkedArray) -> "_Marks":
        marks = cls(broken["id"], ~_bools(pc.or_(whole(broken["rule"]), failed)))
        marks.rule, marks.told = (np.array(broken[name].to_pylist(), object) for name in ("rule", "told"))
        return marks

    def put(self, which: np.ndarray, rule: str, tell: Callable[[int], str]) -> None:
        """Marks rows, those out already aside; a rule about the text leaves alone what carries any."""
        about_text = rule.startswith(TEXT)
        for row in np.flatnonzero(which & self.usable).tolist():
            if not about_text or self.rule[row] is None:
                self.rule[row], self.told[row] = rule, tell(row)
        if not about_text:
            self.usable = self.usable & ~which

    def table(self, group: pa.Array | None = None) -> pa.Table:
        group = pa.nulls(len(self.rule), pa.string()) if group is None else group
        words = (pa.array(column, pa.string()) for column in (self.rule, self.told))
        return pa.table([self.ids, *words, group], schema=FLAGS)


# ---- of one row -------------------------------------------------------------------------------------------------


def _alone(rows: pa.Table, rules: Rules) -> tuple[_Marks, np.ndarray]:
    """The marks, and of all web texts of the table, one behind another, which are out."""
    marks = _Marks(rows["id"], _bools(pc.is_null(rows["failed"])))
    if rules.opt_out:
        words = _opted_out(rows["meta"])
        marks.put(_among(words, len(rows)), "opt_out", lambda i: f"its owner said no ({words[i]})")
    if rules.require_licence:
        _licence(marks, rows["licence"], rules.require_licence)
    _image(marks, rows, rules)
    return marks, _texts(marks, rows["texts"], rules)


def _opted_out(meta: pa.ChunkedArray) -> dict[int, str]:
    """Place → the column that says no, and its value."""
    found = {}
    asked = pc.fill_null(pc.match_substring_regex(meta, _ASKED), False)
    for row in np.flatnonzero(_bools(asked)).tolist():
        for name, value in json.loads(meta[row].as_py()).items():
            plain = name.lower().replace("-", "_").replace(" ", "_")
            words = str(value).strip().lower()
            no = plain in OPT_OUT and words not in ("", "0", "0.0", "false", "no", "none", "nan")
            if no or (plain in ROBOTS and set(words.replace(",", " ").replace(":", " ").split()) & set(NO)):
                found[row] = f"{name}: {str(value)[:80]}"
    return found


def _licence(marks: _Marks, licence: pa.ChunkedArray, allowed: tuple[str, ...]) -> None:
    plain = pc.fill_null(pc.utf8_lower(pc.utf8_trim_whitespace(licence)), "")
    names = [name.strip().lower() for name in allowed]
    good = pc.not_equal(plain, "") if "any" in names else pc.is_in(plain, pa.array(names))
    listed = ", ".join(allowed)

    def tell(row: int) -> str:
        name = licence[row].as_py()
        return f"its licence is {name!r}, not {listed}" if name else f"it names no licence; needed: {listed}"

    marks.put(~_bools(good), "licence", tell)


def _image(marks: _Marks, rows: pa.Table, rules: Rules) -> None:
    width, height = (_numbers(rows[name], np.int64) for name in ("width", "height"))
    spread = _numbers(rows["spread"], np.float32)
    short, long = np.minimum(width, height), np.maximum(width, height)

    def size(row: int) -> str:
        return f"the image is {width[row]} × {height[row]} px"

    marks.put(short < rules.min_px, "too_small", lambda i: f"{size(i)} (short side < {rules.min_px})")
    if rules.max_aspect:
        odd = long > rules.max_aspect * short
        marks.put(odd, "odd_aspect", lambda i: f"{size(i)} ({long[i] / short[i]:.1f} : 1 > {rules.max_aspect:g})")
    blank = spread < rules.min_spread
    marks.put(blank, "blank", lambda i: f"the image is blank (levels spread {spread[i]:.1f} < {rules.min_spread:g})")


def _texts(marks: _Marks, texts: pa.ChunkedArray, rules: Rules) -> np.ndarray:
    """Marks rows none of whose texts stands; → which texts are out."""
    parents, flat = _flat(texts)
    words = pc.count_substring_regex(flat, r"\S+").to_numpy(zero_copy_only=False)
    chars = pc.utf8_length(pc.utf8_trim_whitespace(flat)).to_numpy(zero_copy_only=False)
    named = _bools(pc.match_substring_regex(flat, _NAME)) & rules.names
    languages = _foreign(flat, rules.languages) if rules.languages else {}
    broken: list[tuple[str, np.ndarray, Callable[[int], str]]] = [
        ("text_short", words < rules.min_words, lambda j: f"has {words[j]} words (< {rules.min_words})"),
        ("text_short", chars < rules.min_chars, lambda j: f"has {chars[j]} characters (< {rules.min_chars})"),
        ("text_name", named, lambda j: "is the name of a file, an address, or a camera's note"),
        ("text_language", _among(languages, len(flat)), lambda j: languages[j]),
    ]
    if rules.max_words:
        long = words > rules.max_words
        broken.insert(1, ("text_long", long, lambda j: f"has {words[j]} words (> {rules.max_words})"))
    out = np.any([which for _, which, _ in broken], axis=0)
    _put_texts(marks, parents, out, broken)
    return out


def _put_texts(
    marks: _Marks,
    parents: np.ndarray,
    out: np.ndarray,
    broken: list[tuple[str, np.ndarray, Callable[[int], str]]],
) -> None:
    """Marks rows all of whose texts are out, by the first rule that any of them breaks.

    parents: the row of each text. out: which texts are out. broken: rule, the texts that break it, and the words.
    """
    count = np.bincount(parents, minlength=len(marks.rule))
    dead = (count > 0) & (np.bincount(parents[~out], minlength=len(marks.rule)) == 0)
    for rule, which, tell in broken:
        texts = np.flatnonzero(which & dead[parents])
        rows, firsts = np.unique(parents[texts], return_index=True)
        text = dict(zip(rows.tolist(), texts[firsts].tolist(), strict=True))

        def told(row: int, text: dict[int, int] = text, tell: Callable[[int], str] = tell) -> str:
            subject = "the web text" if count[row] == 1 else f"none of {count[row]} web texts will do: one"
            return f"{subject} {tell(text[row])}"

        marks.put(_among(text, len(dead)), rule, told)


def _foreign(texts: pa.Array, wanted: tuple[str, ...]) -> dict[int, str]:
    """Place → the words, of texts that are surely in a language not wanted."""
    judge = _judge()
    if unknown := sorted(set(wanted) - set(judge.labels)):
        raise ConfigError(f"languages: {', '.join(unknown)} unknown; known are {', '.join(sorted(judge.labels))}")
    found = {}
    for place, text in enumerate(texts.to_pylist()):
        language, share = judge.classify(text)
        if language not in wanted and share >= SURE:
            found[place] = f"seems to be in {language} ({share:.2f}), not {', '.join(wanted)}"
    return found


@functools.cache
def _judge() -> Any:
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError:
        raise ConfigError("languages: telling them needs py3langid; pip install 'capfilt[lang]'") from None
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)  # numbers, no pickle


# ---- across rows ------------------------------------------------------------------------------------------------


def _facts(rows: pa.Table, out: np.ndarray) -> pa.Table:
    """What `across` needs of a table's rows; `out`: which of their texts are out."""
    parents, flat = _flat(rows["texts"])
    letters = (" ".join(_LETTERS.findall(text)).encode() for text in pc.utf8_lower(flat).to_pylist())
    digests = b"".join(hashlib.blake2b(text, digest_size=8).digest() for text in letters)
    said = pa.array(np.frombuffer(digests, "<u8"), mask=out)
    ends = np.r_[0, np.cumsum(np.bincount(parents, minlength=len(rows)))].astype(np.int32)
    area = _numbers(rows["width"], np.int64) * _numbers(rows["height"], np.int64)
    lists = pa.ListArray.from_arrays(pa.array(ends), said)
    failed = pc.is_valid(rows["failed"])
    return pa.table([rows["key"], failed, rows["sha256"], rows["looks"], pa.array(area), lists], schema=_FACTS)


def _duplicates(marks: _Marks, facts: pa.Table, rules: Rules) -> pa.Array:
    """Marks all of a group but the one that stands for it; → its id for each row of the group, null elsewhere."""
    stand, looks = np.arange(len(facts)), _numbers(facts["looks"], np.uint64)
    if rules.duplicates != "off":
        places = np.flatnonzero(marks.usable)
        mine = pa.array(places)
        exact = rules.duplicates == "exact"
        groups = same(facts["sha256"].take(mine)) if exact else near(looks[places], rules.alike_bits)
        stand[places] = places[stands(groups, _numbers(facts["area"], np.int64)[places], marks.ids.take(mine))]
    rows = np.flatnonzero(stand != np.arange(len(facts)))
    others = stand[rows]
    keys = facts["key"].take(pa.array(others)).to_pylist()
    apart = [f"{bits} of 64 bits differ" for bits in np.bitwise_count(looks[rows] ^ looks[others]).tolist()]
    copies = _bools(pc.equal(*(facts["sha256"].take(pa.array(which)) for which in (rows, others))))
    words = {
        row: f"the image is that of {key}, byte for byte" if copy else f"the image looks like that of {key} ({far})"
        for row, key, copy, far in zip(rows.tolist(), keys, copies, apart, strict=True)
    }
    marks.put(_among(words, len(facts)), "duplicate", words.__getitem__)
    together = np.union1d(rows, others)
    group = np.full(len(facts), None, object)
    group[together] = marks.ids.take(pa.array(stand[together])).to_pylist()
    return pa.array(group, pa.string())


def _boilerplate(marks: _Marks, facts: pa.Table, rules: Rules) -> None:
    parents, flat = _flat(facts["said"])
    said, there = _numbers(flat, np.uint64), _bools(pc.is_valid(flat))
    counted = np.flatnonzero(there & marks.usable[parents])
    order = counted[np.lexsort((parents[counted], said[counted]))]
    again = (np.diff(parents[order]) == 0) & (said[order][1:] == said[order][:-1])  # said twice in one row
    texts, rows = np.unique(np.delete(said[order], 1 + np.flatnonzero(again)), return_counts=True)
    most = max(rules.boilerplate_rows, int(rules.boilerplate_share * len(facts)))
    common, rows = texts[rows > most], rows[rows > most]
    if not len(common):
        return
    at = np.minimum(np.searchsorted(common, said), len(common) - 1)
    stale = there & (common[at] == said)

    def tell(text: int) -> str:
        return f"stands, but for numbers and case, in {rows[at[text]]} rows (> {most})"

    _put_texts(marks, parents, ~there | stale, [("text_boilerplate", stale, tell)])


# ---- columns as numbers -----------------------------------------------------------------------------------------


def _bools(column: Any) -> np.ndarray:
    return column.to_numpy(zero_copy_only=False) if isinstance(column, pa.Array) else column.to_numpy()


def _numbers(column: Any, dtype: type) -> np.ndarray:
    """0 where there is none."""
    return np.asarray(pc.fill_null(column, 0)).astype(dtype)


def _flat(lists: pa.ChunkedArray) -> tuple[np.ndarray, pa.Array]:
    """Of every item of a column of lists its row, and all items one behind another."""
    whole = lists.combine_chunks()
    return pc.list_parent_indices(whole).to_numpy(zero_copy_only=False), whole.flatten()


def _among(places: Iterable[int], n: int) -> np.ndarray:
    which = np.zeros(n, bool)
    which[list(places)] = True
    return which
