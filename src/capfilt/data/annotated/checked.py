"""Foreign JSON, checked as it is read: the wrong file is one DataError, a bad row is counted and told.

A reader hands its rows to `collect` with a function that makes records of one row; what that function asks for by
`want` and does not get leaves the row out.
"""

import json
import os
import posixpath
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from capfilt.data.annotations import Id
from capfilt.data.tar_shards import escapes
from capfilt.errors import DataError
from capfilt.files import read_json

T = TypeVar("T")
PathLike = str | Path


class BadRow(Exception):
    """One row that cannot be used; its text is the reason under which it is counted."""


def read_text(path: PathLike) -> str:
    """A whole UTF-8 file, with or without a byte order mark. Raises DataError where there is none."""
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as text ({error})") from None


def read_rows(path: PathLike) -> list[Any]:
    """A JSON list, or JSON lines: what the file begins with decides, not its name. A broken line is None."""
    text = read_text(path)
    if text.lstrip().startswith("["):
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}: not JSON ({error})") from None
    return [_parsed(line) for line in text.split("\n") if line.strip()]


def _parsed(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def read_object(path: PathLike, *lists: str) -> dict[str, Any]:
    """A JSON object that has these keys, a list under each. Raises DataError that names what is missing."""
    return check_lists(path, read_json(path), *lists)


def check_lists(path: PathLike, value: Any, *lists: str) -> dict[str, Any]:
    """The value, if it is an object with these lists in it; else DataError."""
    if not isinstance(value, dict):
        raise DataError(f"{path}: a JSON object with {_quoted(lists)} was expected, this is a {type(value).__name__}")
    for name in lists:
        if not isinstance(value.get(name), list):
            raise DataError(f"{path}: no list {name!r} in it (it has {_quoted(value)}); is it another file?")
    return value


def want(row: Any, key: str, kind: type[T]) -> T:
    """The value under a key, of that type; else BadRow."""
    if not isinstance(row, dict):
        raise BadRow("not a JSON object")
    if key not in row:
        raise BadRow(f"no {key!r}")
    value = row[key]
    if not isinstance(value, kind):
        raise BadRow(f"{key!r} is {type(value).__name__}, not {kind.__name__}")
    return value


def identity(row: Any, key: str) -> Id:
    """The number or name under a key; else BadRow."""
    value = want(row, key, object)
    if not isinstance(value, int | str):
        raise BadRow(f"{key!r} is {type(value).__name__}, not a number or a name")
    return value


def collect(path: PathLike, rows: Sequence[Any], make: Callable[[Any], Iterable[T]]) -> list[T]:
    """The records of every row; an empty answer is a row of no interest, a BadRow is counted.

    Rows left out are told by one warning. Raises DataError if no record comes out at all.
    """
    found: list[T] = []
    left: Counter[str] = Counter()
    for row in rows:
        try:
            found += make(row)
        except BadRow as error:
            left[str(error)] += 1
    why = ", ".join(f"{reason} ({count})" for reason, count in left.most_common(5))
    if not found:
        raise DataError(f"{path}: none of {len(rows)} rows can be used: {why or 'none is of the split asked for'}")
    if left:
        told(path, f"{left.total()} of {len(rows)} rows left out: {why}")
    return found


def told(path: PathLike, what: str) -> None:
    """Warns about something in a file that was left out."""
    warnings.warn(f"{path}: {what}", stacklevel=4)


def placed(root: PathLike, *names: str) -> str:
    """The first of these files that is there under the root, else the first name. BadRow if one leads out of it."""
    if any(map(escapes, names)):
        raise BadRow("names a file outside its folder")
    paths = [posixpath.join(os.fspath(root), name) for name in names]
    return paths[0] if len(paths) == 1 else next(filter(os.path.isfile, paths), paths[0])


def id_of(name: str) -> Id:
    """The number at the end of a file's name, as COCO and NoCaps have it, else the name without its suffix.

    >>> id_of("val2014/COCO_val2014_000000000139.jpg"), id_of("x/img_0777.jpg"), id_of("cat.jpg")
    (139, 777, 'cat')
    """
    stem = posixpath.splitext(posixpath.basename(name))[0]
    last = stem.rpartition("_")[2]
    return int(last) if last.isdecimal() else stem


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names)) or "nothing"
