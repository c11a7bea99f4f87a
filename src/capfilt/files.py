"""Files that are whole or not there: atomic writes, hashes, JSON, and the lease on an output folder."""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from capfilt.errors import BusyError, ConfigError, DataError, StorageError


@contextlib.contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turns what the disk refuses into one clear StorageError."""
    try:
        yield
    except Exception as error:
        number = error.errno if isinstance(error, OSError) else _errno_in(str(error))
        if number in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EFBIG, errno.EIO):
            raise StorageError(
                f"{path}: {os.strerror(number)}. What was written before is intact; "
                f"{'see to the disk' if number == errno.EIO else 'make room'} and run the same command again."
            ) from error
        raise


def _errno_in(message: str) -> int | None:
    """The number in `... (os error 28)`: libraries written in Rust raise errors of their own and only say it."""
    found = re.search(r"\(os error (\d+)\)", message)
    return int(found[1]) if found else None


def atomic(path: Path | str, write: Callable[[Path], object]) -> None:
    """Lets `write` fill a temporary neighbour, then puts it in place: fsync, rename, fsync of the folder."""
    path = Path(path)
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise ConfigError(f"{path}: is a link, a folder or a device, which a file would replace. Name another.")
    mark = int.from_bytes(os.urandom(6))  # process numbers come twice where several machines share a folder
    temporary = path.with_name(f".{path.name}.{mark}.tmp")
    with storage_errors(path):
        try:
            _make_folder(path.parent)
            write(temporary)
            with open(temporary, "rb+") as handle:
                os.fsync(handle.fileno())
            os.chmod(temporary, 0o666 & ~_UMASK)  # some writers leave it to the owner alone
            os.replace(temporary, path)
            _sync_folder(path.parent)
        except (FileExistsError, NotADirectoryError):
            raise ConfigError(f"{path.parent}: there is a file where the folder should be. Choose another.") from None
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink()


def append_line(path: Path | str, line: str) -> None:
    """Adds a line of UTF-8 to a file; when this returns, it survives any death.

    What a kill left of half a line goes first, and a write that fails leaves none. One process at a time.
    """
    path = Path(path)
    with storage_errors(path), open(path, "ab+", buffering=0) as handle:
        whole = _whole_lines_end(handle)
        handle.truncate(whole)
        rest = line.encode() + b"\n"
        try:
            while rest:
                rest = rest[handle.write(rest) :]
            os.fsync(handle.fileno())
            if not whole:  # the file may be new
                _sync_folder(path.parent)
        except OSError:
            with contextlib.suppress(OSError):
                handle.truncate(whole)
            raise


def write_text(path: Path | str, text: str) -> None:
    """Atomically writes UTF-8 text."""
    atomic(path, lambda t: t.write_text(text, encoding="utf-8"))


def write_json(path: Path | str, value: Any) -> None:
    """Atomically writes one JSON value, indented, keys in the order given."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path | str) -> Any:
    """Reads one JSON value; a missing or broken file is a DataError that names it."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not JSON ({error})") from None


def write_jsonl(path: Path | str, rows: list[dict[str, Any]]) -> None:
    """Atomically writes one JSON object a line."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def read_jsonl(path: Path | str) -> list[dict[str, Any]]:
    """Reads JSON lines; a last line cut off by a kill is left out."""
    *lines, _cut_off = (
        Path(path).read_text(encoding="utf-8").split("\n")
    )  # splitlines also cuts at U+2028 within a text
    return [json.loads(line) for line in lines if line.strip()]


def sha256(path: Path | str) -> str:
    """Hex digest of a file's bytes."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


@contextlib.contextmanager
def lease(folder: Path | str, shared: bool = False) -> Iterator[None]:
    """Holds an output folder for this process. A second run on it gets BusyError; a killed one leaves nothing held.

    shared: with others that ask so too, each for files of its own. Else what killed runs left half written is removed.
    """
    folder = Path(folder)
    try:
        with storage_errors(folder):
            _make_folder(folder)
            handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    except (FileExistsError, NotADirectoryError):
        raise ConfigError(f"{folder}: there is a file where the folder should be. Choose another --out.") from None
    _HELD.add(handle)
    try:
        try:
            fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(handle, 64).decode(errors="replace").strip() or "unknown"
            raise BusyError(
                f"{folder}: another run is writing here (process {holder}). "
                "Wait for it, stop it, or choose another --out."
            ) from None
        with storage_errors(folder):
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
            for leftover in folder.rglob(".*.tmp") if not shared else ():
                if re.fullmatch(r"\..+\.\d+\.tmp", leftover.name):  # as `atomic` names them: no other file goes
                    leftover.unlink(missing_ok=True)
        yield
    finally:
        _HELD.discard(handle)
        os.close(handle)


def _make_folder(folder: Path) -> None:
    """Makes a folder and those above it where they are missing, their names safe on disk."""
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _whole_lines_end(handle: IO[bytes]) -> int:
    """Where the last line that is whole ends, in bytes."""
    size = handle.seek(0, os.SEEK_END)
    handle.seek(max(0, size - 1))
    if handle.read(1) in (b"\n", b""):
        return size
    handle.seek(0)
    return handle.read().rfind(b"\n") + 1


_HELD: set[int] = set()
_UMASK = os.umask(0)
os.umask(_UMASK)


def _let_go() -> None:
    """A forked worker has the lock too, and would keep it when its parent is killed."""
    while _HELD:
        os.close(_HELD.pop())


os.register_at_fork(after_in_child=_let_go)
