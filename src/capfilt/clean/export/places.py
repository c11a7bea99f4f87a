"""Where an export goes: a folder here, or wherever fsspec reaches. What stands under a name there is whole."""

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from capfilt.errors import ConfigError
from capfilt.files import atomic, lease, sha256, storage_errors

MANIFEST = "export.json"


class Place:
    """A folder. Here, files are renamed into place; object stores have them put at once, which is as good.

    folder: where it is on this machine; None where it is not.

    Raises:
        ConfigError: an address that fsspec cannot reach.
    """

    def __init__(self, url: str) -> None:
        try:
            self._fs, root = fsspec.core.url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise ConfigError(f"{url}: cannot be written to ({error})") from None
        self._root = root.rstrip("/")
        self.folder = Path(root) if isinstance(self._fs, LocalFileSystem) else None

    def url(self, name: str) -> str:
        """How the file is called, for messages."""
        return str(self.folder / name) if self.folder else f"{self._fs.unstrip_protocol(self._root)}/{name}"

    def held(self) -> contextlib.AbstractContextManager:
        """Keeps others from writing here meanwhile, as far as that can be."""
        return lease(self.folder) if self.folder else contextlib.nullcontext()

    def names(self) -> list[str]:
        """What lies in it, hidden files left out."""
        if not self._fs.isdir(self._root):
            return []
        names = [os.path.basename(name.rstrip("/")) for name in self._fs.ls(self._root, detail=False)]
        return sorted(name for name in names if not name.startswith("."))

    def is_folder(self, name: str) -> bool:
        """Whether that name is a folder's."""
        return self._fs.isdir(f"{self._root}/{name}")

    def is_special(self, name: str) -> bool:
        """Whether a link, device or pipe of this machine has that name, such as /dev/stdout."""
        path = self.folder / name if self.folder else None
        return path is not None and (path.is_symlink() or (path.exists() and not (path.is_file() or path.is_dir())))

    def start(self, name: str, count: int) -> bytes:
        """The first bytes of a file; nothing where there is none."""
        path = f"{self._root}/{name}"
        return self._fs.read_block(path, 0, count) if self._fs.isfile(path) else b""

    def file(self, name: str, write: Callable[[Path], object]) -> dict[str, Any]:
        """Lets `write` fill a file on this machine, then puts it in place; → its name, size and hash."""
        found: dict[str, Any] = {"file": name}

        def measured(path: Path) -> None:
            write(path)
            found.update(bytes=path.stat().st_size, sha256=sha256(path))

        if self.folder:
            atomic(self.folder / name, measured)
            return found
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "file"
            measured(path)
            self._fs.put_file(str(path), f"{self._root}/{name}")
        return found

    def put(self, name: str, data: bytes) -> None:
        """One of many small files: whole, though not yet safe from a power cut (`settle`)."""
        if self.folder is None:
            self._fs.pipe_file(f"{self._root}/{name}", data)
            return
        path = self.folder / name
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        with storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(data)
            os.replace(temporary, path)

    def has(self, name: str, digest: str) -> bool:
        """Whether that very file was put here before; of a far place it is not asked."""
        path = self.folder / name if self.folder else None
        return path is not None and path.is_file() and sha256(path) == digest

    def settle(self) -> None:
        """What was put is on disk when this returns."""
        if self.folder:
            os.sync()

    def verify(self, part: dict[str, Any]) -> bool:
        """Whether a file that `file` wrote is what it was; far from here its size is believed."""
        path = f"{self._root}/{part['file']}"
        if self.folder:
            return self.has(part["file"], part["sha256"])
        return self._fs.isfile(path) and self._fs.size(path) == part["bytes"]

    def account(self) -> dict[str, Any] | None:
        """The manifest; None where there is none."""
        try:
            return json.loads(self._fs.cat_file(f"{self._root}/{MANIFEST}"))
        except FileNotFoundError:
            return None
        except ValueError:
            raise ConfigError(f"{self.url(MANIFEST)}: is no manifest of an export. Choose another --out.") from None

    def tell(self, account: dict[str, Any]) -> None:
        """Puts the manifest in place."""
        self.file(MANIFEST, lambda path: path.write_text(json.dumps(account, indent=1, ensure_ascii=False) + "\n"))


def digest(data: bytes) -> str:
    """SHA-256, in hex."""
    return hashlib.sha256(data).hexdigest()
