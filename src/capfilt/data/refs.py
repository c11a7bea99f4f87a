"""Where an image's bytes lie, as one line of JSON, and how they come from there.

| kind | is |
|---|---|
| `file` | a whole file; `instead` lists where else it may lie, in the order of looking |
| `part` | `size` bytes from `offset` of a file, of its unpacked stream where it is packed (`.tar.gz`) |
| `cell` | row `row`, from 0, of the column `column` of a parquet file: bytes, or a struct that holds `bytes` |
| `url` | an address on the net; loaded only by an `Images` that was given a `Fetching` |

Paths are whole, so that an image is found again without the source that named it.

Reasons: `no_image` `missing_file` `not_a_file` `empty` `too_large` `unreadable` `truncated`, and for addresses those of
`fetch`.
"""

import contextlib
import errno
import json
import os
import posixpath
import stat
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, fields
from itertools import accumulate
from typing import IO, Any, Literal

import fsspec
from fsspec.implementations.local import LocalFileSystem

from capfilt.data.fetch import Fetching, fetch
from capfilt.errors import ImageError

MAX_IMAGE_BYTES = 256 * 2**20
OPEN_FILES = 4
CELLS = 16  # of a parquet file in memory at a time
BUFFER = 2**20  # bytes of a parquet column that are read ahead
_DISK = LocalFileSystem()


@dataclass(frozen=True, slots=True)
class Ref:
    """One image's place (table in the module's docstring). `path` is absolute, or a URL that fsspec opens."""

    kind: Literal["file", "part", "cell", "url"]
    path: str
    offset: int = 0
    size: int = 0
    row: int = 0
    column: str = ""
    instead: tuple[str, ...] = ()

    def json(self) -> str:
        """One line, ASCII whatever the names; what is as it always is, is left out."""
        return json.dumps({name: value for name, usual in _USUAL if (value := getattr(self, name)) != usual})

    @classmethod
    def of_json(cls, text: str) -> "Ref":
        """What `json` wrote."""
        found = json.loads(text)
        return cls(**{**found, "instead": tuple(found.get("instead", ()))})


_USUAL = [(field.name, field.default) for field in fields(Ref)]


class Images:
    """Loads images by their refs. One a worker, not for several threads; leaving it closes what it has open.

    The last few files stay open, and packed streams and parquet columns are walked forward: refs that come in the order
    of the source cost one pass.

    Args:
        fetching: how addresses are fetched; None: they are not.
    """

    def __init__(self, fetching: Fetching | None = None) -> None:
        self._fetching = fetching
        self._open: OrderedDict[tuple[str, str], _Part | _Cells] = OrderedDict()

    def __enter__(self) -> "Images":
        return self

    def __exit__(self, *_: object) -> None:
        while self._open:
            self._open.popitem()[1].close()

    def load(self, ref: Ref | str) -> bytes:
        """The encoded image. Raises ImageError (reasons in the module's docstring)."""
        ref = Ref.of_json(ref) if isinstance(ref, str) else ref
        if ref.size > MAX_IMAGE_BYTES:
            raise ImageError("too_large", f"{ref.path}: an image of {ref.size} bytes, the limit is {MAX_IMAGE_BYTES}")
        if ref.kind == "url":
            if self._fetching is None:
                raise ImageError("url", f"{ref.path} is on the net; images are fetched only where that is asked for")
            data = fetch(ref.path, self._fetching)
        elif ref.kind == "file":
            data = _whole(ref)
        else:
            data = self._within(ref)
        if not data:
            raise ImageError("empty", "0 bytes")
        return _bounded(ref.path, data)

    def _within(self, ref: Ref) -> bytes:
        place = ref.path, ref.column
        try:
            if place not in self._open:
                if len(self._open) >= OPEN_FILES:
                    self._open.popitem(last=False)[1].close()
                self._open[place] = _Part(ref.path) if ref.kind == "part" else _Cells(ref.path, ref.column)
            self._open.move_to_end(place)
            return self._open[place].read(ref)
        except (ImageError, MemoryError):
            raise
        except Exception as error:  # what is read is damaged, or the net is; every driver has errors of its own
            if broken := self._open.pop(place, None):
                with contextlib.suppress(Exception):
                    broken.close()
            raise _told(ref.path, error) from None


class _Part:
    """A file, or the stream that is packed in it."""

    def __init__(self, path: str) -> None:
        self._opened = opened(*file_system(path))
        self._handle = self._opened.__enter__()

    def read(self, ref: Ref) -> bytes:
        self._handle.seek(ref.offset)
        data = self._handle.read(ref.size)
        if len(data) < ref.size:
            raise EOFError(f"{len(data)} of {ref.size} bytes are there")
        return data

    def close(self) -> None:
        self._opened.__exit__(None, None, None)


class _Cells:
    """One column of a parquet file, a few cells in memory."""

    def __init__(self, path: str, column: str) -> None:
        from pyarrow import parquet

        self._opened = opened(*file_system(path))
        self._file = parquet.ParquetFile(self._opened.__enter__(), buffer_size=BUFFER)
        self._column = column
        sizes = [self._file.metadata.row_group(i).num_rows for i in range(self._file.num_row_groups)]
        self._ends = list(accumulate(sizes, initial=0))  # of each row group, 0 before the first
        self._group = -1
        self._cells: list[Any] = []
        self._first = 0  # row of the first of them

    def read(self, ref: Ref) -> bytes:
        if not 0 <= ref.row < self._ends[-1]:
            raise EOFError(f"row {ref.row} of {self._ends[-1]}")
        group = bisect_right(self._ends, ref.row) - 1
        if group != self._group or ref.row < self._first:
            self._batches = self._file.iter_batches(CELLS, [group], [self._column], use_threads=False)
            self._group, self._first, self._cells = group, self._ends[group], []
        while ref.row >= self._first + len(self._cells):
            self._first += len(self._cells)
            self._cells = next(self._batches).column(self._column)
        cell = self._cells[ref.row - self._first].as_py()
        data = cell.get("bytes") if isinstance(cell, dict) else cell
        if data is None:
            raise ImageError("no_image", f"{ref.path}: no bytes in row {ref.row} of {self._column}")
        return data

    def close(self) -> None:
        self._opened.__exit__(None, None, None)


def file_system(path: str) -> tuple[Any, str]:
    """(fsspec's file system, the path within it). Local names are taken as they are, whatever they hold."""
    return (_DISK, path) if path.startswith("/") else fsspec.core.url_to_fs(path)


def whole_path(fs: Any, path: str) -> str:
    """The other way: what `file_system` finds the same file by."""
    return path if isinstance(fs, LocalFileSystem) else fs.unstrip_protocol(path)


@contextlib.contextmanager
def opened(fs: Any, path: str) -> Iterator[IO[bytes]]:
    """A file, unpacked while it is read where its name says that it is packed."""
    packed = "gzip" if path.lower().endswith(".tgz") else "infer"
    with fs.open(path, "rb", compression=packed) as handle:
        yield handle


def whole(fs: Any, path: str) -> bytes:
    """A file's bytes. Raises ImageError: `missing_file`, `not_a_file`, `too_large`, `unreadable`."""
    try:
        plain, size = _about(fs, path)
        if not plain:
            raise ImageError("not_a_file", f"{path} is no plain file")
        if size > MAX_IMAGE_BYTES:
            raise ImageError("too_large", f"{path} is {size} bytes, the limit is {MAX_IMAGE_BYTES}")
        return _bounded(path, _read(path) if isinstance(fs, LocalFileSystem) else fs.cat_file(path))
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # as above
        raise _told(path, error) from None


def _about(fs: Any, path: str) -> tuple[bool, int]:
    """(is it a plain file?, its size, 0 where that is not told)."""
    if isinstance(fs, LocalFileSystem):  # in a fifth of the time that its `info` takes
        found = os.stat(path)
        return stat.S_ISREG(found.st_mode), found.st_size
    about = fs.info(path)
    return about["type"] == "file", about.get("size") or 0


def _read(path: str) -> bytes:
    with open(path, "rb", buffering=0) as handle:
        return handle.readall()


def _whole(ref: Ref) -> bytes:
    """The first of the places that holds a file."""
    other = None
    for path in (ref.path, *ref.instead):
        try:
            return whole(*file_system(path))
        except ImageError as error:
            if error.reason not in ("missing_file", "not_a_file"):
                raise
            other = other or (error if error.reason == "not_a_file" else None)
    if other:
        raise other
    base = posixpath.dirname(ref.path)
    looked = ", ".join(posixpath.relpath(posixpath.dirname(path), base) for path in (ref.path, *ref.instead))
    raise ImageError("missing_file", f"{ref.path}: no such file (looked in {looked})")


def _bounded(path: str, data: bytes) -> bytes:
    if len(data) > MAX_IMAGE_BYTES:  # of a file that did not tell its size
        raise ImageError("too_large", f"{path} is {len(data)} bytes, the limit is {MAX_IMAGE_BYTES}")
    return data


def _told(path: str, error: Exception) -> ImageError:
    too_long = isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG
    if too_long or isinstance(error, FileNotFoundError | NotADirectoryError | UnicodeError):  # or no file's name at all
        return ImageError("missing_file", f"{path}: no such file")
    why = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
    return ImageError("truncated" if isinstance(error, EOFError) else "unreadable", f"{path}: {why}")
