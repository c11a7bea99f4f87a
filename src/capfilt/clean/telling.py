"""A run's tables → what its page says: counts, bins, and a few rows of each kind with their images.

Tables are walked through twice, a block at a time, so that memory does not grow with them. Which rows are shown hangs
on their ids alone: the first by id are as good as drawn, for ids are hashes.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from capfilt.clean import reviews
from capfilt.clean.fitting import fit_run
from capfilt.clean.ledger import Ledger
from capfilt.clean.tally import Binned, First, bars_of, blocks, decided, floats, kinds, marks
from capfilt.clean.thumbnails import Thumbnails
from capfilt.clean.truth import truth_of
from capfilt.errors import DataError, ImageError
from capfilt.files import read_json
from capfilt.report.clean import CleanRecord, Counted, Curve, Gallery, Group, Sample
from capfilt.report.clean.record import DECISIONS
from capfilt.report.words import REASON_WORDS

PX = 240  # of the longer side of an image on the page
SHOWN, SHOWN_OF_FAILURE, GROUPS, COPIES = 8, 5, 12, 4  # rows of a gallery, of a failure; groups, and images of one
SOURCES, GALLERIES = 30, 40
SCORES = ("itm_web", "itm_synthetic", "itc_web", "itc_synthetic", "score_web", "score_synthetic")
TEXTS = ("web_text", "synthetic_text")
COUNTED = ("id", "source", "decision", "reason", *TEXTS, *SCORES)
TOLD = (*COUNTED, "key", "text", "texts")
EXTREMES = {  # name → (decision, title, meaning)
    "worst": ("keep", "Kept, lowest scores", "web texts that only just passed"),
    "best": ("keep", "Kept, highest scores", "web texts that the filter likes best"),
    "gain": ("replace", "Replaced, largest gain", "synthetic texts that beat their web text by most"),
    "close": ("drop", "Dropped, highest scores", "rows that only just failed"),
}
BY_FILTER = {
    "keep": "the filter let the web text pass",
    "replace": "only the synthetic text passed the filter",
    "drop": "no text passed the filter",
}
RULE_WORDS = {
    "opt_out": "its owner opted out",
    "licence": "it has none of the licences asked for",
    "too_small": "the image is too small",
    "odd_aspect": "the image is too long or too wide",
    "blank": "the image shows nothing",
    "duplicate": "another row has the same image",
    "not_scored": "no model has looked at it yet",
}
TITLES = {"keep": "Kept", "replace": "Replaced", "drop": "Dropped", "failed": "Failed"}


def gather(out: Path | str) -> CleanRecord:
    """What the run in `out` has to show. Raises DataError where nothing was decided yet."""
    out = Path(out)
    made, ledger, seen = decided(out), Ledger(out), _Seen(decided(out))
    for table in blocks(out, COUNTED):
        seen.add(table)
    counts = {"in": seen.rows, **{name: seen.decisions[name] for name in DECISIONS}}
    notes = []
    if seen.rows != ledger.rows("rows"):
        notes.append(f"The run has {ledger.rows('rows'):,} rows by now. Decide again, and this page tells of all.")
    curve = None
    if (out / reviews.NAME).is_file():
        try:
            curve = _curve(out)
        except DataError as error:  # too few words yet
            notes.append(f"No curve of the filter by people's word: {error}.")
    rows, groups = _rows(out, ledger, seen)
    return CleanRecord(
        title=f"{out.resolve().name}: what became of the rows",
        counts=counts,
        funnel=_funnel(seen, counts, ledger),
        sources=_sources(seen.sources),
        reasons=[(decision, words(decision, kind), n) for (decision, kind), n in seen.kinds.most_common()],
        scores=seen.scores(bars_of(made)[0], made["policy"]["score"]),
        bars=seen.binned.told(),
        curve=curve,
        truth=truth_of(out),
        galleries=_galleries(seen, rows),
        duplicates=[Group(found, seen.copies[mark]) for mark, found in groups.items()],
        duplicate_groups=seen.group_count,
        failures=[
            (f"{kind}: {words('failed', kind)}", n, seen.shown(rows, "failed", kind, SHOWN_OF_FAILURE))
            for (decision, kind), n in seen.kinds.most_common()
            if decision == "failed"
        ],
        text_rules={name: n for name, n in made["rules"].items() if name.startswith("text_")},
        settings=_settings(out) | _flat(made["policy"], "policy."),
        notes=notes,
    )


def words(decision: str, kind: str) -> str:
    """A kind of reason (`tally.kinds`), as readers see it."""
    if kind == "filter":
        return BY_FILTER.get(decision, "the filter")
    if kind == "person":
        return "a person said so"
    return (REASON_WORDS | RULE_WORDS).get(kind, kind.replace("_", " "))


class _Seen:
    """The first walk: everything that is counted, and the places of the rows that are to be shown."""

    def __init__(self, made: Mapping[str, Any]) -> None:
        self.rows = self.ruled_out = self.judged = 0
        self.decisions: Counter[str] = Counter()
        self.sources: dict[str, Counter[str]] = {}
        self.kinds: Counter[tuple[str, str]] = Counter()
        self.binned = Binned(made)
        self.bins = {name: np.zeros(100 if name.startswith("itm") else 200, np.int64) for name in SCORES[:4]}
        self.samples: dict[tuple[str, str], First] = {}
        self.extremes = {name: First(SHOWN) for name in EXTREMES}
        self.copies: Counter[int] = Counter()
        self.group_count = 0
        self._groups: list[np.ndarray] = []

    def add(self, table: pa.Table) -> None:
        """One block more."""
        places = np.arange(self.rows, self.rows + len(table))
        self.rows += len(table)
        ids, kind = marks(table["id"]), kinds(table)
        table = table.append_column("kind", kind)
        for found in _counted(table, "source", "decision"):
            self.sources.setdefault(found["source"] or "", Counter())[found["decision"]] += found["n"]
            self.decisions[found["decision"]] += found["n"]
        for found in _counted(table, "decision", "kind"):
            both = found["decision"], found["kind"]
            self.kinds[both] += found["n"]
            here = pc.and_(pc.equal(table["decision"], both[0]), pc.equal(kind, both[1])).to_numpy()
            self.samples.setdefault(both, First(SHOWN)).add(ids[here], ids[here], places[here])
        self.binned.add(table)
        scores = {name: floats(table[name]) for name in SCORES}
        for name, bins in self.bins.items():
            low = 0.0 if name.startswith("itm") else -1.0
            values = scores[name][~np.isnan(scores[name])]
            bins += np.histogram(np.clip(values, low, 1.0), len(bins), (low, 1.0))[0]
        self.judged += int((~np.isnan(scores["itm_web"]) | ~np.isnan(scores["itm_synthetic"])).sum())
        self._extremes(table, scores, ids, places)
        grouped = table["group"].is_valid()
        if pc.any(grouped).as_py():
            self._groups.append(marks(table["group"].filter(grouped)))

    def _extremes(self, table: pa.Table, scores: dict[str, np.ndarray], ids: np.ndarray, places: np.ndarray) -> None:
        web, synthetic = scores["score_web"], scores["score_synthetic"]
        values = {"worst": web, "best": -web, "gain": web - synthetic, "close": -np.fmax(web, synthetic)}
        for name, (decision, *_) in EXTREMES.items():
            here = pc.equal(table["decision"], decision).to_numpy() & ~np.isnan(values[name])
            here &= pc.equal(table["kind"], "filter").to_numpy()
            self.extremes[name].add(values[name][here], ids[here], places[here])

    def choose_groups(self) -> set[int]:
        """The marks of the groups of duplicates that are shown; those of one image alone are none."""
        every = np.concatenate(self._groups) if self._groups else np.zeros(0, np.uint64)
        names, sizes = np.unique(every, return_counts=True)
        names, sizes = names[sizes > 1], sizes[sizes > 1]
        self.group_count = len(names)
        self.copies = Counter(dict(zip(names[:GROUPS].tolist(), sizes[:GROUPS].tolist(), strict=True)))
        return set(self.copies)

    def places(self) -> np.ndarray:
        """Of all rows that are shown, in order; duplicates aside."""
        found = [first.places for first in (*self.samples.values(), *self.extremes.values())]
        return np.unique(np.concatenate([np.zeros(0, np.int64), *found]))

    def shown(self, rows: Mapping[int, Sample], decision: str, kind: str, most: int = SHOWN) -> list[Sample]:
        """The samples of one decision and kind."""
        return [rows[place] for place in self.samples[decision, kind].places[:most].tolist()]

    def scores(self, bar: float | None, compared: str) -> list[Counted]:
        """What the two heads said of the texts, with the bar where it lies on one head alone."""
        found = []
        for head, low in (("itm", 0.0), ("itc", -1.0)):
            series = {f"{which} texts": self.bins[f"{head}_{which}"].tolist() for which in ("web", "synthetic")}
            bars = {f"bar {bar:.3f}": bar} if bar is not None and compared == head else {}
            found.append(Counted(head.upper(), low, 1.0, series, bars))
        return found


def _counted(table: pa.Table, *columns: str) -> list[dict[str, Any]]:
    """Rows of each combination, as `n`, in a fixed order."""
    found = table.group_by(list(columns), use_threads=False).aggregate([([], "count_all")])
    return found.rename_columns({"count_all": "n"}).to_pylist()


def _rows(out: Path, ledger: Ledger, seen: _Seen) -> tuple[dict[int, Sample], dict[int, list[Sample]]]:
    """The second walk: (place → row) of all that are shown, (group's mark → its first rows)."""
    groups, wanted, start = seen.choose_groups(), seen.places(), 0
    rows: dict[int, Sample] = {}
    copies: dict[int, list[Sample]] = {mark: [] for mark in sorted(groups)}
    with Thumbnails(ledger) as images:
        for table in blocks(out, TOLD):
            here = wanted[np.searchsorted(wanted, start) : np.searchsorted(wanted, start + len(table))]
            for place, row in zip(here.tolist(), table.take(here - start).to_pylist(), strict=True):
                rows[place] = _sample(row, place, images)
            for place, mark in _members(table, groups):
                row = table.slice(place, 1).to_pylist()[0]
                stands = row["group"] == row["id"]
                if stands or len(copies[mark]) < COPIES:
                    copies[mark].insert(0 if stands else COPIES, _sample(row, start + place, images))
            start += len(table)
    return rows, {mark: found[:COPIES] for mark, found in copies.items()}


def _members(table: pa.Table, groups: set[int]) -> list[tuple[int, int]]:
    """(place in the table, group's mark) of the rows of these groups."""
    grouped = np.flatnonzero(table["group"].is_valid().to_numpy())
    if not len(grouped) or not groups:
        return []
    named = marks(table["group"].take(pa.array(grouped)))
    hit = np.isin(named, np.fromiter(groups, np.uint64, len(groups)))
    return list(zip(grouped[hit].tolist(), named[hit].tolist(), strict=True))


def _sample(row: Mapping[str, Any], place: int, images: Thumbnails) -> Sample:
    shown = {name: row[name] for name in TOLD}
    if row["decision"] == "failed":
        return Sample(**shown, missing="could not be read")
    try:
        return Sample(**shown, image=images.jpeg(place, row["id"], PX))
    except ImageError as error:
        return Sample(**shown, missing=f"no image: {error.reason}")


def _galleries(seen: _Seen, rows: Mapping[int, Sample]) -> list[Gallery]:
    """Of each decision: drawn rows by reason, then the extremes."""
    found = []
    for decision in ("keep", "replace", "drop"):
        for (of, kind), total in seen.kinds.most_common(GALLERIES):
            if of == decision:
                title = TITLES[of] if kind == "filter" else f"{TITLES[of]}: {kind}"
                shown = seen.shown(rows, of, kind)
                found.append(Gallery(f"{of}-{kind}", title, words(of, kind), of, shown, total))
        for name, (of, title, meaning) in EXTREMES.items():
            chosen = seen.extremes[name].places.tolist()
            if of == decision and chosen:
                found.append(Gallery(name, title, meaning, of, [rows[p] for p in chosen], seen.extremes[name].total))
    return found


def _curve(out: Path) -> Curve:
    found = fit_run(out)
    points = [(recall, precision) for _, precision, recall in found.curve]
    return Curve(points, found.accepted + found.rejected, found.average_precision, found.threshold)


def _funnel(seen: _Seen, counts: Mapping[str, int], ledger: Ledger) -> list[tuple[str, int, str]]:
    unread = sum(len(table) - table["failed"].null_count for table in ledger.tables("rows", ["failed"]))
    ruled = sum(
        n for (decision, kind), n in seen.kinds.items() if decision != "failed" and kind not in ("filter", "person")
    )
    left = counts["in"] - unread
    texts = counts["keep"] + counts["replace"]
    return [
        ("rows in", counts["in"], f"{unread:,} could not be read" if unread else ""),
        ("readable", left, f"{ruled:,} put out by rules" if ruled else ""),
        ("pass the rules", left - ruled, ""),
        ("judged", seen.judged, f"{counts['drop'] - ruled:,} with no text that fits" if counts["drop"] > ruled else ""),
        ("with a text", texts, f"{counts['keep']:,} kept, {counts['replace']:,} replaced"),
    ]


def _sources(found: Mapping[str, Counter[str]]) -> dict[str, dict[str, int]]:
    """The largest sources; the others as one."""
    order: Sequence[str] = sorted(found, key=lambda name: (-found[name].total(), name))
    shown = {name: dict(found[name]) for name in order[:SOURCES]}
    rest: Counter[str] = Counter()
    for name in order[SOURCES:]:
        rest.update(found[name])
    return shown | ({f"{len(order) - SOURCES:,} others": dict(rest)} if rest else {})


def _settings(out: Path) -> dict[str, Any]:
    return _flat(read_json(out / "run.json")) if (out / "run.json").is_file() else {}


def _flat(values: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{before}{name}.") if isinstance(value, Mapping) and value else {before + name: value}
    return flat
