"""Walking through a run's decisions with what the rules said, a block of rows at a time, and counting on the way."""

import functools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet

from capfilt.errors import CheckFailed, DataError
from capfilt.files import read_json
from capfilt.report.clean import Bars

BLOCK = 1 << 16  # rows
STEP = 0.01  # between two bars that can be tried
BY_RULES = ("rule", "told", "group")


def decided(out: Path) -> dict[str, Any]:
    """How the decisions were made (`decisions.json`). Raises DataError where nothing was decided yet."""
    if not (out / "decisions.parquet").is_file():
        raise DataError(f"{out}: nothing was decided here yet. Run capfilt clean, or capfilt decide {out}")
    return read_json(out / "decisions.json")


def blocks(out: Path, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """Decisions with the columns `BY_RULES`, in order. columns: of decisions; `id` is among them; None for all.

    Raises CheckFailed where the rows of the two tables differ.
    """
    if not (out / "flags.parquet").is_file():  # a part of a run that was decided before it was whole
        for table in _cut(out / "decisions.parquet", columns):
            nothing = pa.chunked_array([pa.nulls(len(table), pa.string())])
            yield functools.reduce(lambda wider, name: wider.append_column(name, nothing), BY_RULES, table)
        return
    both = _cut(out / "decisions.parquet", columns), _cut(out / "flags.parquet", ("id", *BY_RULES))
    for table, broken in zip(*both, strict=True):
        if not table["id"].equals(broken["id"]):
            raise CheckFailed(f"{out}: decisions and flags are of other rows. Run capfilt decide {out}")
        for name in BY_RULES:
            table = table.append_column(name, broken[name])
        yield table


def _cut(path: Path, columns: Sequence[str] | None) -> Iterator[pa.Table]:
    """Tables of BLOCK rows, the last of what is left."""
    with parquet.ParquetFile(path) as file:
        held: list[pa.RecordBatch] = []
        for batch in file.iter_batches(BLOCK, columns=columns, use_threads=False):
            held.append(batch)
            while sum(map(len, held)) >= BLOCK:
                table = pa.Table.from_batches(held)
                yield table.slice(0, BLOCK)
                held = table.slice(BLOCK).to_batches()
        if held:
            yield pa.Table.from_batches(held)


def out_by_rule(table: pa.Table) -> pa.ChunkedArray:
    """Where a rule put the whole row out, or what a scorer said; rules about the text leave the image in."""
    rule = pc.fill_null(pc.invert(pc.starts_with(table["rule"], "text_")), False)
    scorer = pc.match_substring_regex(table["reason"], r"^\w+: ")  # what the filter says begins otherwise
    return pc.or_(rule, pc.and_(scorer, pc.equal(table["decision"], "drop")))


def by_person(table: pa.Table) -> pa.ChunkedArray:
    """Where a person had the last word."""
    return pc.starts_with(table["reason"], "a person")


def kinds(table: pa.Table) -> pa.ChunkedArray:
    """Why, in one word: the code of a failure, the rule that put the row out, `person` or `filter`."""
    failed = pc.equal(table["decision"], "failed")
    code = pc.replace_substring_regex(table["reason"], "(?s):.*", "")
    asked = pc.make_struct(
        *(column.combine_chunks() for column in (failed, by_person(table), out_by_rule(table))),
        field_names=["failed", "person", "rule"],
    )
    found = pc.case_when(asked, code.combine_chunks(), "person", code.combine_chunks(), "filter")
    return pa.chunked_array([found])


def marks(ids: pa.ChunkedArray) -> np.ndarray:
    """The first 16 of the ids' hex digits as (N,) uint64; they order rows as if they were drawn."""
    fixed = ids.combine_chunks().cast(pa.binary()).cast(pa.binary(32))
    signs = np.frombuffer(fixed.buffers()[1], np.uint8)[32 * fixed.offset :][: 32 * len(fixed)].reshape(-1, 32)[:, :16]
    digits = (signs & 15) + 9 * (signs >> 6)  # "0" is 48, "a" is 97
    pairs = np.ascontiguousarray(digits[:, ::2] << 4 | digits[:, 1::2])
    return pairs.view(">u8").ravel().astype(np.uint64)


def floats(column: pa.ChunkedArray) -> np.ndarray:
    """(N,) float64, NaN where null."""
    return column.to_numpy().astype(np.float64)


class First:
    """The places of the rows with the smallest values; of equal ones, those with the smallest mark."""

    def __init__(self, most: int) -> None:
        self.most, self.total = most, 0
        self.values, self.marks, self.places = (np.zeros(0), np.zeros(0, np.uint64), np.zeros(0, np.int64))

    def add(self, values: np.ndarray, marks: np.ndarray, places: np.ndarray) -> None:
        """All (N,)."""
        self.total += len(values)
        if len(values) > self.most:
            few = values <= np.partition(values, self.most - 1)[self.most - 1]
            values, marks, places = values[few], marks[few], places[few]
        if not len(self.places):
            self.values = self.values.astype(values.dtype)
        values, marks = np.concatenate([self.values, values]), np.concatenate([self.marks, marks])
        first = np.lexsort((marks, values))[: self.most]
        self.values, self.marks = values[first], marks[first]
        self.places = np.concatenate([self.places, places])[first]


class Binned:
    """Counts rows by both of their scores (`report.clean.Bars`)."""

    def __init__(self, made: Mapping[str, Any]) -> None:
        self.made = made
        self.low = -1.0 if made["policy"]["score"] == "itc" else 0.0
        self.steps = round((1.0 - self.low) / STEP)
        # In the scores' own precision, as policies compare.
        self.edges = np.round(self.low + STEP * np.arange(self.steps + 1), 10).astype(np.float32)
        self.shape = (self.steps + 2, self.steps + 2, 2)
        self.cells = np.zeros(np.prod(self.shape), np.int64)
        self.fixed: Counter[str] = Counter()

    def add(self, table: pa.Table) -> None:
        """A block of `blocks`, with decision, reason and both scores."""
        stuck = pc.or_(pc.or_(pc.equal(table["decision"], "failed"), out_by_rule(table)), by_person(table))
        self.fixed.update(table["decision"].filter(stuck).to_pylist())
        free = table.filter(pc.invert(stuck))
        web, synthetic = (np.nan_to_num(free[f"score_{name}"].to_numpy(), nan=-np.inf) for name in ("web", "synthetic"))
        levels = [np.searchsorted(self.edges, scores, side="right") for scores in (web, synthetic)]
        levels[0][free["rule"].is_valid().to_numpy()] = 0  # a rule put the text out
        places = np.ravel_multi_index((*levels, (web >= synthetic).astype(int)), self.shape)
        self.cells += np.bincount(places, minlength=len(self.cells))

    def told(self) -> Bars:
        """What was counted."""
        places = np.flatnonzero(self.cells)
        where = np.stack([*np.unravel_index(places, self.shape), self.cells[places]], axis=1)
        cells = [(a, b, c, d) for a, b, c, d in where.tolist()]
        name = self.made["policy"]["name"]
        return Bars(name, self.low, STEP, self.steps, cells, dict(self.fixed), *bars_of(self.made))


def bars_of(made: Mapping[str, Any]) -> tuple[float | None, float | None]:
    """The bars of web and of synthetic texts; None where each group has its own."""
    found = {(bar["web"], bar["synthetic"]) for bar in made["thresholds"].values()}
    return found.pop() if len(found) == 1 else (None, None)
