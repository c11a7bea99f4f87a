"""Pictures of named files, decoded once into one array at the size they are used in; what cannot be read is said.

Shapes: M files, pictures of S x S pixels.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from capfilt.config import fingerprint
from capfilt.data.decoders import Decoders
from capfilt.data.table import Pictures
from capfilt.errors import ConfigError, DataError, ImageError
from capfilt.files import atomic, read_json, write_json
from capfilt.progress import Progress

AT_ONCE = 256  # files in memory


@dataclass(frozen=True)
class Album:
    """Pictures that go by the names of their files.

    pictures: (M, S, S, 3) uint8.
    place:    name → its picture's number; only of those that could be read.
    failed:   name → reason code, colon, why it could not.
    """

    pictures: Pictures
    place: dict[str, int]
    failed: dict[str, str]


def open_album(names: Iterable[str], out: Path, px: int, workers: int = 0) -> Album:
    """Reads image files into `out`, each once, squashed to px x px; a second call maps what is there.

    workers: processes that decode; as many as there are processor cores if 0.

    Raises:
        ConfigError: `out` holds pictures of other files or of another size.
        DataError: not one file could be read.
    """
    wanted = list(dict.fromkeys(names))
    about, mark = out / "album.json", fingerprint({"names": wanted, "px": px})
    if not about.is_file():
        reasons: dict[str, str] = {}
        atomic(out / "pictures.npy", lambda temporary: _decode(wanted, temporary, px, workers, reasons))
        if len(reasons) == len(wanted):
            first = next(iter(reasons), "no name")
            raise DataError(f"none of {len(wanted)} images can be read; the first, {first}: {reasons.get(first, '')}")
        write_json(about, {"fingerprint": mark, "failed": reasons})
    found = read_json(about)
    if found["fingerprint"] != mark:
        raise ConfigError(f"{out}: holds pictures of other files, or of another size. Use another --out.")
    failed = found["failed"]
    place = {name: i for i, name in enumerate(wanted) if name not in failed}
    return Album(np.load(out / "pictures.npy", mmap_mode="r"), place, failed)


def _decode(names: Sequence[str], path: Path, px: int, workers: int, reasons: dict[str, str]) -> None:
    """Writes the array, plain black where a file cannot be read, and why not into `reasons`."""
    shape = {"descr": "|u1", "fortran_order": False, "shape": (len(names), px, px, 3)}
    with open(path, "wb") as pixels, Decoders(workers or os.cpu_count() or 1, px) as decoders:
        np.lib.format.write_array_header_1_0(pixels, shape)
        with Progress("reading", len(names)) as bar:
            for start in range(0, len(names), AT_ONCE):
                _decode_some(names[start : start + AT_ONCE], decoders, pixels, px, reasons)
                bar.update(min(len(names), start + AT_ONCE))


def _decode_some(names: Sequence[str], decoders: Decoders, pixels: BinaryIO, px: int, reasons: dict[str, str]) -> None:
    read = [_read(name) for name in names]
    decoded = decoders.decode(data for data in read if isinstance(data, bytes))
    for name, data in zip(names, read, strict=True):
        found = next(decoded) if isinstance(data, bytes) else data
        if isinstance(found, ImageError):
            reasons[name] = f"{found.reason}: {found}"
            pixels.write(bytes(px * px * 3))
        else:
            pixels.write(found.pixels)


def _read(name: str) -> bytes | ImageError:
    try:
        return Path(name).read_bytes()
    except FileNotFoundError:
        return ImageError("missing_file", "no such file")
    except OSError as error:
        return ImageError("unreadable", error.strerror or str(error))
