"""Rows of tables (JSON lines, JSON, CSV, TSV, Parquet), and the guess which column is the image and which the text."""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import IO, Any

TABLE_SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
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


def plain_name(path: str) -> str:
    """The name without its packing: `a.jsonl.gz` → `a.jsonl`."""
    return next((path.removesuffix(s) for s in PACKED_SUFFIXES if path.lower().endswith(s)), path)


def fixed_columns(name: str) -> bool:
    """Whether every row of this table has the same columns."""
    return plain_name(name).lower().endswith((".csv", ".tsv", ".parquet"))


def table_rows(handle: IO[bytes], name: str) -> Iterator[tuple[int, Row | str]]:
    """(row number from 1, the row, or what is wrong with it). A stream that breaks raises what its reader raises."""
    suffix = plain_name(name).lower()
    if suffix.endswith(".parquet"):
        return _parquet(handle)
    if suffix.endswith((".csv", ".tsv")):
        return _delimited(handle, "\t" if suffix.endswith(".tsv") else ",")
    return _json(handle) if suffix.endswith(".json") else _json_lines(handle)


def pick(row: Mapping[str, Any], wanted: str | None, guesses: Iterable[str]) -> str | None:
    """The column to use: the wanted one, else the first guess that holds something, else the first one there."""
    if wanted is not None:
        return wanted if wanted in row else None
    names = {name.lower(): name for name in reversed(list(row))}  # of two that differ in case only, the first
    there = [names[guess] for guess in guesses if guess in names]
    return next((name for name in there if row[name] not in (None, "", [], b"")), there[0] if there else None)


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


def _parquet(handle: IO[bytes]) -> Iterator[tuple[int, Row | str]]:
    from pyarrow import parquet

    number = 0
    for batch in parquet.ParquetFile(handle).iter_batches(batch_size=PARQUET_ROWS):
        for row in batch.to_pylist():
            number += 1
            yield number, row
