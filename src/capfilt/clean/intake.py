"""The rows of a source in shards of equal size: names, texts, and where the images lie. No image is loaded.

Every row of the source is a row here, also what cannot be used. A key that comes again, as that of a row that failed
often does, is told apart by a count (`key#2`), so keys are unique, and with them ids, their hashes.
"""

import datetime
import functools
import hashlib
import itertools
import json
import math
import posixpath
from collections.abc import Container, Iterator
from typing import Any

import pyarrow as pa

from capfilt.clean.columns import INTAKE
from capfilt.data.rows import Seen, mark_of
from capfilt.data.sources import Failure, Source
from capfilt.pair import Pair

LICENCE = ("license", "licence", "rights")
SOURCE = ("source",)


def tasks(source: Source, shard_rows: int, skip: Container[int]) -> Iterator[tuple[int, pa.Table]]:
    """(shard, its rows as INTAKE), in order; all but the last have `shard_rows` rows.

    skip: shards that are not wanted; their rows are passed by.

    Raises DataError for a source without a single row, and for a table without its columns.
    """
    rows = _keyed(source)
    for shard in itertools.count():
        batch = itertools.islice(rows, shard_rows)
        if shard in skip:
            if not sum(1 for _ in batch):
                return
            continue
        table = pa.Table.from_pylist([_row(source, key, item) for key, item in batch], schema=INTAKE)
        if not len(table):
            return
        yield shard, table


def row_id(key: str) -> str:
    """32 hex digits that stand for a key, on every machine."""
    return hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _keyed(source: Source) -> Iterator[tuple[str, Pair | Failure]]:
    """Each row with a key that no other has."""
    seen, again = Seen(), dict[int, int]()
    for item in source.read(lazy=True):
        key = item.key
        if not seen.add(key):
            mark = mark_of(key)
            for count in itertools.count(again.get(mark, 1) + 1):
                again[mark] = count
                if seen.add(key := f"{item.key}#{count}"):
                    break
        yield key, item


def _row(source: Source, key: str, item: Pair | Failure) -> dict[str, Any]:
    failure = item if isinstance(item, Failure) else None
    meta = dict(item.meta) if isinstance(item, Pair) else {}
    flags = meta.pop("text_flags") if isinstance(meta.get("text_flags"), tuple) else ()  # not a column of that name
    licence, own = _taken(meta, LICENCE), _taken(meta, SOURCE)
    return {
        "id": row_id(key),
        "key": _printable(key),
        "source": _printable(own or _place(source, item)),
        "texts": list(item.texts),
        "text_flags": list(flags),
        "licence": None if licence is None else _printable(licence),
        "meta": _json(meta),
        "ref": None if failure else item.image.json(),  # type: ignore[union-attr]
        "failed": failure.reason if failure else None,
        "error": " ".join(_printable(failure.message).split()) if failure else None,
    }


def _place(source: Source, item: Pair | Failure) -> str:
    """The file that a row was read from, of a photo in a folder its folder; as seen from the source's root."""
    return _relative(posixpath.dirname(item.source) if source.kind == "folder" else item.source, source.origin.root)


_relative = functools.lru_cache(64)(posixpath.relpath)


def _taken(meta: dict[str, Any], names: tuple[str, ...]) -> str | None:
    """The first of these columns that says something, out of the row; upper and lower case are the same."""
    for column in [c for name in names for c in meta if c.lower() == name]:
        if meta[column] not in (None, "", [], {}):
            value = meta.pop(column)
            return value if isinstance(value, str) else _json(value)
    return None


def _json(value: Any) -> str:
    """JSON of whatever a row may hold: bytes are left out, what JSON has no word for is null or a string."""
    try:
        return json.dumps(_plain(value))
    except RecursionError:
        return json.dumps({"meta_error": "nested too deeply"})


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(name): _plain(v) for name, v in value.items() if not isinstance(v, bytes)}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value if not isinstance(v, bytes)]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    return value if value is None or isinstance(value, str | int) else str(value)


def _printable(text: str) -> str:
    """Names of files may hold bytes that are no text; they are written out, as \\udcff."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
