"""A run as one table, sorted by id: `jsonl`, or `csv` for spreadsheets.

Rows come in the order of their source and ids are hashes, so lines are dealt by their first digits to files that fit
into memory, and each of those is sorted.
"""

import contextlib
import csv
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from capfilt.clean.export.places import Place
from capfilt.clean.export.rows import COLUMNS, Choice, chosen, line, record, total
from capfilt.errors import ConfigError
from capfilt.files import lease, storage_errors
from capfilt.progress import Progress

FORMATS = ("jsonl", "csv")
DIGITS = 2  # hex digits that deal the rows: 256 files
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet would run


def export_table(run: Path, out: str, form: str, choice: Choice) -> int:
    """Writes one file, whole or not at all; → how many rows.

    form: `jsonl` (every row one object, `rows.record`) or `csv` (the same columns; lists and meta as JSON; text that a
          spreadsheet would take for a formula has a ' before it).

    Raises:
        ConfigError: `out` is a folder, a link, a device, or a file that this has not written.
        NothingToRead: no decided run.
    """
    count = total(run)
    place, _, name = out.rstrip("/").rpartition("/")
    where = Place(place or ("/" if out.startswith("/") else "."))
    _check(where, name)
    written = 0

    def write(path: Path) -> None:
        nonlocal written
        with _parts(where, name) as folder, Progress("exporting", count) as bar:
            _deal(run, choice, folder, bar)
            with open(path, "w", encoding="utf-8", newline="") as table:
                put = _WRITERS[form](table)
                for text in _sorted(folder):
                    put(text)
                    written += 1

    where.file(name, write)
    return written


def _check(where: Place, name: str) -> None:
    """What was exported before may be exported anew; no other file is written over."""
    if where.is_folder(name):
        raise ConfigError(f"{where.url(name)}: is a folder; jsonl and csv are one file, so name it.")
    if where.is_special(name):
        raise ConfigError(f"{where.url(name)}: is a link or device, which a file would replace. Name a plain file.")
    start = where.start(name, 4096)
    if start and not start.startswith((b'{"id": "', b"id,key,source,")):
        raise ConfigError(f"{where.url(name)}: there is a file that capfilt has not exported. Choose another --out.")


@contextlib.contextmanager
def _parts(where: Place, name: str) -> Iterator[Path]:
    """A folder for the unsorted lines, on the disk that is written to; what a kill left in it goes first."""
    if where.folder is None:
        with tempfile.TemporaryDirectory() as here:
            yield Path(here)
        return
    folder = where.folder / f".{name}.parts"
    with lease(folder), storage_errors(folder):
        for left in folder.glob("?" * DIGITS):
            left.unlink()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _deal(run: Path, choice: Choice, folder: Path, bar: Progress) -> None:
    with contextlib.ExitStack() as held:
        files: dict[str, IO[str]] = {}
        for number, row in enumerate(chosen(run, choice), 1):
            digits = row["id"][:DIGITS]
            if digits not in files:
                files[digits] = held.enter_context(open(folder / digits, "w", encoding="utf-8", newline=""))
            files[digits].write(line(record(row)) + "\n")
            bar.update(number)


def _sorted(folder: Path) -> Iterator[str]:
    """Lines begin with their id, so they sort as they are."""
    for path in sorted(folder.glob("?" * DIGITS)):
        yield from sorted(path.read_text(encoding="utf-8").split("\n")[:-1])
        path.unlink()


def _jsonl(table: IO[str]) -> Callable[[str], object]:
    return lambda text: table.write(text + "\n")


def _csv(table: IO[str]) -> Callable[[str], object]:
    writer = csv.writer(table)
    writer.writerow(COLUMNS)
    return lambda text: writer.writerow([_cell(value) for value in json.loads(text).values()])


def _cell(value: Any) -> Any:
    if isinstance(value, list | dict):
        return line(value) if value else ""  # type: ignore[arg-type]
    return "'" + value if isinstance(value, str) and value.startswith(FORMULA) else value


_WRITERS = {"jsonl": _jsonl, "csv": _csv}
