"""A run's decisions laid out for looking through: texts in a memory-mapped file, what filters and sorts in arrays.

N rows.
"""

import functools
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from capfilt.clean.tally import Binned, blocks, decided, kinds, marks
from capfilt.errors import ConfigError, DataError
from capfilt.report.clean.record import DECISIONS, Bars

Order = Literal["given", "lowest", "highest"]
Which = Literal["web", "synthetic"]
SCORES = ("itm_web", "itm_synthetic", "itc_web", "itc_synthetic", "score_web", "score_synthetic")
COLUMNS = ("id", "key", "source", "decision", "reason", "text", "texts", "web_text", "synthetic_text", *SCORES)
SEARCHED = ("web_text", "synthetic_text", "key")
LONGEST_SEARCH = 200


@dataclass(frozen=True)
class Asked:
    """Which rows are looked at, and in which order.

    decision, source, kind: exactly that; any if None. text: within one of the texts or the key, in any case.
    low, high: of the score of `which` text, both included; a row without one is left out.
    reviewed: only with, or only without, a person's word. order: as in the source, or by the score of `which` text.
    """

    decision: str | None = None
    source: str | None = None
    kind: str | None = None
    text: str | None = None
    which: Which = "web"
    low: float | None = None
    high: float | None = None
    reviewed: bool | None = None
    order: Order = "given"

    def __post_init__(self) -> None:
        for name, value, known in (
            ("decision", self.decision, (None, *DECISIONS)),
            ("which", self.which, get_args(Which)),
            ("order", self.order, get_args(Order)),
        ):
            if value not in known:
                raise ConfigError(f"{name}={value!r} is not one of {', '.join(filter(None, known))}")
        if len(self.text or "") > LONGEST_SEARCH:
            raise ConfigError(f"a search of {len(self.text or '')} characters; at most {LONGEST_SEARCH}")


class Rows:
    """The rows of the run in `out`, as they were decided when this was made. Takes a second or two a million rows.

    folder: for the memory-mapped table; it can go when this is gone. Raises DataError where nothing was decided yet.
    """

    def __init__(self, out: Path, folder: Path) -> None:
        self.made = decided(out)
        binned, found = Binned(self.made), _Codes()
        path = folder / "rows.arrow"
        with pa.OSFile(str(path), "wb") as sink:
            writer = None
            for table in blocks(out, COLUMNS):
                binned.add(table)
                table = table.select(COLUMNS).append_column("kind", kinds(table))
                found.add(table)
                writer = writer or pa.ipc.new_file(sink, table.schema)
                writer.write_table(table)
            if writer is None:
                raise DataError(f"{out}: no row is in this run")
            writer.close()
        self.table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        self.codes = {name: np.concatenate(parts) for name, parts in found.codes.items()}
        self.names = found.names
        self.scores = {name: self._numbers(f"score_{name}") for name in get_args(Which)}
        self.marks = marks(self.table["id"])
        self.by_mark = np.argsort(self.marks, kind="stable")
        self.bars: Bars = binned.told()
        self.reviewed = np.zeros(len(self.table), bool)
        self.version = 0  # of `reviewed`
        self._one = threading.Lock()
        self._found, self._sorted = functools.lru_cache(8)(self._find), functools.lru_cache(4)(self._sort)
        for which in get_args(Which):  # now, and not when a person waits
            for order in ("lowest", "highest"):
                self._sorted(which, order)

    def __len__(self) -> int:
        return len(self.table)

    def place(self, row: str) -> int | None:
        """Where the row of that id is; None where there is none."""
        if len(row) != 32 or set(row) - set("0123456789abcdef"):
            return None
        mark = np.uint64(int(row[:16], 16))
        at = int(np.searchsorted(self.marks, mark, sorter=self.by_mark))
        while at < len(self) and self.marks[self.by_mark[at]] == mark:
            if self.table["id"][int(self.by_mark[at])].as_py() == row:
                return int(self.by_mark[at])
            at += 1
        return None

    def row(self, place: int) -> dict[str, Any]:
        """All columns of one row."""
        return self.table.slice(place, 1).to_pylist()[0]

    def counts(self, name: str) -> list[tuple[str, int]]:
        """(value, rows) of `decision`, `source` or `kind`, the most frequent first."""
        numbers = np.bincount(self.codes[name], minlength=len(self.names[name]))
        return sorted(zip(self.names[name], numbers.tolist(), strict=True), key=lambda pair: (-pair[1], pair[0]))

    def mark_reviewed(self, ids: Iterable[str], alone: bool = False) -> None:
        """These rows are reviewed; `alone`: and no others."""
        if alone:
            self.reviewed[:] = False
        self.reviewed[[place for place in map(self.place, ids) if place is not None]] = True
        self.version += 1

    def find(self, asked: Asked, version: int | None = None) -> np.ndarray:
        """(F,) places of the rows that are asked for, in the order that is asked for.

        version: of an earlier answer that is to be paged through, though `reviewed` has changed since.
        """
        with self._one:
            return self._found(asked, self.version if version is None else version)

    def _find(self, asked: Asked, _version: int) -> np.ndarray:
        stays = np.ones(len(self), bool)
        for name in ("decision", "source", "kind"):
            value = getattr(asked, name)
            if value is not None:
                names = self.names[name]
                stays &= self.codes[name] == names.index(value) if value in names else False
        scores = self.scores[asked.which]
        if asked.low is not None:
            stays &= scores >= np.float32(asked.low)
        if asked.high is not None:
            stays &= scores <= np.float32(asked.high)
        if asked.reviewed is not None:
            stays &= self.reviewed == asked.reviewed
        if asked.text:
            stays &= self.contains(SEARCHED, asked.text)
        if asked.order == "given":
            return np.flatnonzero(stays)
        order = self._sorted(asked.which, asked.order)
        return order[stays[order]]

    def _sort(self, which: Which, order: Order) -> np.ndarray:
        scores = self.scores[which]
        return np.argsort(scores if order == "lowest" else -scores, kind="stable")  # NaN goes last either way

    def contains(self, columns: Sequence[str], text: str, case: bool = False) -> np.ndarray:
        """(N,) whether one of the columns holds the text. case: whether upper and lower differ."""
        hit = np.zeros(len(self), bool)
        for name in columns:
            found = pc.match_substring(self.table[name], text, ignore_case=not case)
            hit |= pc.fill_null(found, False).to_numpy()
        return hit

    def _numbers(self, name: str) -> np.ndarray:
        return self.table[name].to_numpy().astype(np.float32)


class _Codes:
    """Values of columns that have few, as numbers."""

    def __init__(self) -> None:
        self.names: dict[str, list[str]] = {"decision": [], "source": [], "kind": []}
        self.codes: dict[str, list[np.ndarray]] = {name: [] for name in self.names}
        self._code: dict[str, dict[str, int]] = {name: {} for name in self.names}

    def add(self, table: pa.Table) -> None:
        for name, names in self.names.items():
            found = pc.fill_null(table[name].combine_chunks(), "").dictionary_encode()
            known = self._code[name]
            for value in found.dictionary.to_pylist():
                if value not in known:
                    known[value] = len(names)
                    names.append(value)
            codes = np.array([known[value] for value in found.dictionary.to_pylist()], np.int32)
            self.codes[name].append(codes[found.indices.to_numpy()])
