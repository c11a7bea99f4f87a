"""The account of a cleaning run: shards that are whole or not there, and a manifest line for each that is.

    OUT/run.json              what the run is: source, settings, models, and the mark of all that results hang on
    OUT/rows/00000.parquet    stages of `columns`, so many rows a shard
    OUT/scores/00000.parquet
    OUT/manifest.jsonl        {"stage", "shard", "rows", "sha256"} of each committed shard
    OUT/reviews.jsonl         what people said
    OUT/decisions.parquet     the view of the day, and `decisions.json`, how it was made

A shard counts once its line stands in the manifest, and its line is written when the shard is safe on disk: temporary
neighbour, fsync, rename, fsync of the folder, line, fsync. What a kill leaves at any moment is done again or found.
With `part`, one of several processes that share the folder, each its own shards and a manifest of its own.
"""

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
from pyarrow import parquet

from capfilt.clean.columns import SCHEMAS
from capfilt.errors import ChangedError, CheckFailed, DataError
from capfilt.files import append_line, atomic, sha256, storage_errors


@dataclass(frozen=True)
class Entry:
    """A committed shard, as its line in the manifest says."""

    stage: str
    shard: int
    rows: int
    sha256: str


class Ledger:
    """One folder. Whoever writes holds its lease (`files.lease`); reading needs none."""

    def __init__(self, out: Path | str, part: str = "") -> None:
        self.out = Path(out)
        self.manifest = self.out / f"manifest{part and '-'}{part}.jsonl"
        self.entries: dict[tuple[str, int], Entry] = {}
        self._digests: defaultdict[tuple[str, int], set[str]] = defaultdict(set)
        for path in sorted(self.out.glob("manifest*.jsonl")):
            for entry in _entries(path):
                self._enter(entry)

    def shards(self, stage: str) -> list[int]:
        """Committed ones, in order."""
        return sorted(shard for of, shard in self.entries if of == stage)

    def rows(self, stage: str) -> int:
        """Rows in committed shards."""
        return sum(entry.rows for entry in self.entries.values() if entry.stage == stage)

    def path(self, stage: str, shard: int) -> Path:
        """Where that shard lies."""
        return self.out / stage / f"{shard:05d}.parquet"

    def commit(self, stage: str, shard: int, table: pa.Table) -> None:
        """Writes a shard; when this returns, it survives any death.

        Raises CheckFailed for a table of other columns, StorageError where the disk refuses.
        """
        if not table.schema.equals(SCHEMAS[stage]):
            raise CheckFailed(f"{stage} {shard}: columns {table.schema.names} instead of {SCHEMAS[stage].names}")
        plain = table.combine_chunks().cast(SCHEMAS[stage])  # bytes hang on values, not on how they came together
        path = self.path(stage, shard)
        atomic(path, lambda temporary: parquet.write_table(plain, temporary, compression="zstd"))
        with storage_errors(path):
            entry = Entry(stage, shard, len(table), sha256(path))
        append_line(self.manifest, json.dumps(asdict(entry)))
        self._enter(entry)

    def verify(self) -> list[str]:
        """Takes shards out of account whose file is gone or no longer what was committed; → a line about each."""
        lost = []
        for key in list(self.entries):
            path = self.path(*key)
            # Made twice, by several parts perhaps, a shard has several lines; its file is never older than the last.
            if not path.is_file() or sha256(path) not in self._digests[key]:
                lost.append(f"{path}: {'is not what was committed' if path.is_file() else 'is gone'}; it is made again")
                del self.entries[key], self._digests[key]
        return lost

    def table(self, stage: str, shard: int, columns: Sequence[str] | None = None) -> pa.Table:
        """A committed shard, or some columns of it. Raises DataError where its file is gone or damaged."""
        path = self.path(stage, shard)
        try:
            with parquet.ParquetFile(path, memory_map=True) as file:  # in half the time of `read_table`
                table = file.read(columns=columns and list(columns), use_threads=False)
        except (OSError, pa.ArrowException):
            what = "is damaged" if path.is_file() else "is gone"
            raise DataError(f"{path}: {what}; run the same `capfilt clean` again, it makes it anew") from None
        if missing := set(columns or ()) - set(table.schema.names):
            raise ChangedError(f"{path}: written by another version ({', '.join(missing)} is missing); use another -o")
        return table

    def tables(self, stage: str, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """All committed shards, in order."""
        for shard in self.shards(stage):
            yield self.table(stage, shard, columns)

    def _enter(self, entry: Entry) -> None:
        key = entry.stage, entry.shard
        self.entries[key] = entry
        self._digests[key].add(entry.sha256)


def _entries(manifest: Path) -> Iterator[Entry]:
    *lines, _half = manifest.read_bytes().split(b"\n")
    for number, line in enumerate(lines, 1):
        try:
            yield Entry(**json.loads(line))
        except (ValueError, TypeError):
            raise DataError(
                f"{manifest}: line {number} is damaged ({line[:40]!r}). Delete that line; its shard is made again."
            ) from None
