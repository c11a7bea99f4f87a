"""Rows of tables (JSON lines, JSON, CSV, TSV, Parquet, lists of URLs), and the guess which column is the image and
which the text."""

import csv
import functools
import hashlib
import io
import json
from array import array
from collections.abc import Iterator, Mapping
from typing import IO, Any

TABLE_SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
LIST_SUFFIX = ".txt"
PACKED_SUFFIXES = (".gz", ".bz2", ".xz", ".zst")
IMAGE_COLUMNS = (
    *("file", "file_name", "filename", "image", "image_path", "image_file", "img_path", "filepath", "file_path"),
    *("path", "img", "jpg", "jpeg", "png", "webp", "image_bytes", "bytes"),
)
TEXT_COLUMNS = (
    *("captions", "caption", "texts", "text", "alt_text", "alttext", "alt", "raw", "sentences", "sentence", "txt"),
    *("title", "description", "prompt", "comment"),
)
URL_COLUMNS = ("url", "image_url", "img_url")
KEY_COLUMNS = ("key", "__key__", "uid")
PARQUET_ROWS = 64  # read at a time: each may hold a whole image

Row = dict[str, Any]


class Stored:
    """Stands in a row for bytes that were left where they lie."""


STORED = Stored()


class Seen:
    """What came before, as 8 bytes of a hash each, 12 to 24 with the room to grow: so that millions fit.

    Among a hundred million, the chance that one is taken for another is 1 in 3,000.
    """

    def __init__(self) -> None:
        self._slots, self._count = array("Q", bytes(8 * 1024)), 0

    def add(self, *what: object) -> bool:
        """Whether it is new; from now on it is not."""
        if 3 * self._count > 2 * len(self._slots):
            kept, self._slots = self._slots, array("Q", bytes(8 * 2 * len(self._slots)))
            for mark in filter(None, kept):
                self._slots[self._slot(mark)] = mark
        mark = mark_of(*what)
        slot = self._slot(mark)
        new = not self._slots[slot]
        self._slots[slot] = mark
        self._count += new
        return new

    def _slot(self, mark: int) -> int:
        """Where it is, or would be."""
        last = len(self._slots) - 1
        slot = mark & last
        while self._slots[slot] not in (0, mark):
            slot = (slot + 1) & last
        return slot


def mark_of(*what: object) -> int:
    """8 bytes of a hash, as a number above 0."""
    return int.from_bytes(hashlib.blake2b(repr(what).encode(), digest_size=8).digest(), "big") or 1


def plain_name(path: str) -> str:
    """The name without its packing: `a.jsonl.gz` → `a.jsonl`."""
    return next((path.removesuffix(s) for s in PACKED_SUFFIXES if path.lower().endswith(s)), path)


def fixed_columns(name: str) -> bool:
    """Whether every row of this table has the same columns."""
    return plain_name(name).lower().endswith((".csv", ".tsv", ".parquet"))


def table_rows(handle: IO[bytes], name: str, image: str | None = None) -> Iterator[tuple[int, Row | str]]:
    """(row number from 1, the row, or what is wrong with it). A stream that breaks raises what its reader raises.

    Images inside a parquet file are not read: `STORED` stands for the bytes of the column `image`, or else of every
    column that is named as images are, wherever the file says of itself that they are there.
    """
    suffix = plain_name(name).lower()
    if suffix.endswith(".parquet"):
        return _parquet(handle, image)
    if suffix.endswith(LIST_SUFFIX):
        return _urls(handle)
    if suffix.endswith((".csv", ".tsv")):
        return _delimited(handle, "\t" if suffix.endswith(".tsv") else ",")
    return _json(handle) if suffix.endswith(".json") else _json_lines(handle)


def pick(row: Mapping[str, Any], wanted: str | None, guesses: tuple[str, ...]) -> str | None:
    """The column to use: the wanted one, else the first guess that holds something, else the first one there."""
    if wanted is not None:
        return wanted if wanted in row else None
    there = _there(tuple(row), guesses)
    return next((name for name in there if row[name] not in (None, "", [], b"")), there[0] if there else None)


@functools.lru_cache(16)  # the rows of a table have the same columns
def _there(columns: tuple[str, ...], guesses: tuple[str, ...]) -> tuple[str, ...]:
    names = {name.lower(): name for name in reversed(columns)}  # of two that differ in case only, the first
    return tuple(names[guess] for guess in guesses if guess in names)


def pick_image(row: Mapping[str, Any], wanted: str | None) -> str | None:
    """The image's column; a URL's only where there is no other, so that the row can say why it fails."""
    return pick(row, wanted, IMAGE_COLUMNS) or pick(row, wanted, URL_COLUMNS)


def captions_of(value: Any) -> list[str | bytes]:
    """Every caption in a cell: a text, a list of them, or {raw: …} and its like."""
    if isinstance(value, str | bytes):
        return [value]
    if isinstance(value, list | tuple):
        return [caption for item in value for caption in captions_of(item)]
    if isinstance(value, dict):
        column = pick(value, None, TEXT_COLUMNS)
        return captions_of(value[column]) if column else []
    return []


def _json_lines(handle: IO[bytes]) -> Iterator[tuple[int, Row | str]]:
    for number, line in enumerate(handle, 1):
        text = line.decode("utf-8", "replace").removeprefix("\ufeff").strip()
        if text:
            yield number, _row(text)


def _row(text: str) -> Row | str:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        return f"not a line of JSON ({error})"
    return value if isinstance(value, dict) else f"a JSON object is needed, not {type(value).__name__}"


def _json(handle: IO[bytes]) -> Iterator[tuple[int, Row | str]]:
    try:
        value = json.loads(handle.read().decode("utf-8-sig", "replace"))
    except RecursionError as error:
        raise ValueError(f"nested too deeply ({error})") from None
    if not isinstance(value, list):
        raise ValueError(f"a JSON list of rows is needed, not {type(value).__name__}")
    for number, row in enumerate(value, 1):
        yield number, row if isinstance(row, dict) else f"a JSON object is needed, not {type(row).__name__}"


def _delimited(handle: IO[bytes], delimiter: str) -> Iterator[tuple[int, Row | str]]:
    lines = csv.reader(io.TextIOWrapper(handle, "utf-8-sig", errors="replace", newline=""), delimiter=delimiter)
    header = next(lines, [])
    number = 0
    while True:
        number += 1
        try:
            cells = next(lines)
        except StopIteration:
            return
        except csv.Error as error:  # one cell larger than the reader allows
            yield number, f"not a line of this table ({error})"
            continue
        if len(cells) > len(header):
            yield number, f"{len(cells)} cells under {len(header)} columns: is a comma inside unquoted text?"
        elif cells:
            yield number, dict(zip(header, [*cells, *[None] * (len(header) - len(cells))], strict=True))


def _urls(handle: IO[bytes]) -> Iterator[tuple[int, Row | str]]:
    for number, line in enumerate(handle, 1):
        url, _, text = line.decode("utf-8", "replace").removeprefix("\ufeff").strip().partition("\t")
        if url:
            yield number, {"url": url, "text": text} if "://" in url else f"not a URL: {url[:80]!r}"


def _parquet(handle: IO[bytes], image: str | None) -> Iterator[tuple[int, Row | str]]:
    from pyarrow import parquet

    file = parquet.ParquetFile(handle, buffer_size=2**20)
    paths = [file.schema.column(i).path for i in range(len(file.schema))]
    number = 0
    for group in range(file.num_row_groups):
        left = _left(file, group, paths, image)
        columns = [path for path in paths if path not in left]
        for batch in file.iter_batches(PARQUET_ROWS, [group], columns, use_threads=False):
            for row in batch.to_pylist():
                number += 1
                yield number, {name: _filled(row, name, left) for name in file.schema_arrow.names} if left else row


def _left(file: Any, group: int, paths: list[str], image: str | None) -> set[str]:
    """Columns, by their paths, of image bytes that need not be read to know that they are there."""
    left, about = set(), file.metadata.row_group(group)
    for i, path in enumerate(paths):
        name = path.removesuffix(".bytes")
        if (name == image if image else name.lower() in IMAGE_COLUMNS) and _holds_bytes(file.schema_arrow, name, path):
            told = about.column(i).statistics
            if told is not None and told.has_null_count and told.null_count == 0:
                left.add(path)
    return left


def _holds_bytes(schema: Any, name: str, path: str) -> bool:
    from pyarrow import types

    kind = schema.field(name).type
    if path != name:
        kind = kind.field("bytes").type
    return types.is_binary(kind) or types.is_large_binary(kind)


def _filled(row: Row, name: str, left: set[str]) -> Any:
    if name in left:
        return STORED
    return {**row.get(name, {}), "bytes": STORED} if f"{name}.bytes" in left else row[name]
