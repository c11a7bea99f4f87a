"""Pictures or clips of named files, decoded once into one array at the size they are used in; what cannot be is said.

Shapes: M files, pictures of S x S pixels, F frames a clip.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from capfilt.config import fingerprint
from capfilt.data.arrays import write_bytes
from capfilt.data.decoders import Decoders, Reading
from capfilt.data.table import Pictures
from capfilt.data.video import frames
from capfilt.errors import ConfigError, DataError, ImageError
from capfilt.files import atomic, read_json, write_json
from capfilt.progress import Progress

CLIPS_AT_ONCE = 16

Found = bytes | ImageError  # a file's pixels, or why there are none


@dataclass(frozen=True)
class Album:
    """Pictures, or clips, that go by the names of their files.

    pictures: (M, S, S, 3) uint8; of clips (M, F, S, S, 3).
    place:    name → its picture's number; only of those that could be read.
    failed:   name → reason code, colon, why it could not.
    """

    pictures: Pictures
    place: dict[str, int]
    failed: dict[str, str]


def open_album(names: Iterable[str], out: Path, px: int, reading: Reading | None = None) -> Album:
    """Reads image files into `out`, each once, squashed to px x px; a second call maps what is there.

    reading: how; by as many processes as there are processor cores unless it says otherwise.

    Raises:
        ConfigError: `out` holds pictures of other files or of another size.
        DataError: not one file could be read.
    """

    def pictures(wanted: Sequence[str]) -> Iterator[Found]:
        with Decoders(px, reading) as decoders:
            for found in decoders.decode(wanted):
                yield found if isinstance(found, ImageError) else found.pixels.tobytes()

    how = {"scaled": True} if reading and reading.scaled else {}
    return _album(list(dict.fromkeys(names)), out, (px, px, 3), how, pictures)


def open_clips(names: Iterable[str], out: Path, px: int, count: int) -> Album:
    """As `open_album`, `count` frames of every clip (`video.frames`). Raises DataError too where PyAV is needed."""

    def one(name: str) -> Found:
        try:
            return frames(name, count, px).tobytes()
        except ImageError as error:
            return error

    def clips(wanted: Sequence[str]) -> Iterator[Found]:
        with ThreadPoolExecutor() as threads:
            for start in range(0, len(wanted), CLIPS_AT_ONCE):
                yield from threads.map(one, wanted[start : start + CLIPS_AT_ONCE])

    return _album(list(dict.fromkeys(names)), out, (count, px, px, 3), {"frames": (count,)}, clips)


def _album(
    wanted: list[str],
    out: Path,
    shape: tuple[int, ...],
    how: dict[str, Any],
    decode: Callable[[Sequence[str]], Iterator[Found]],
) -> Album:
    about = out / "album.json"
    mark = fingerprint({"names": wanted, "px": shape[-2], **how})
    if not about.is_file():
        reasons: dict[str, str] = {}

        def write(temporary: Path) -> None:
            pieces = _shown(wanted, decode(wanted), bytes(math.prod(shape)), reasons)
            write_bytes(temporary, (len(wanted), *shape), pieces)
            if len(reasons) == len(wanted):
                first, why = next(iter(reasons.items()), ("no name", "nothing to read"))
                raise DataError(f"none of {len(wanted)} files can be read; the first, {first}: {why}")

        atomic(out / "pictures.npy", write)
        write_json(about, {"fingerprint": mark, "failed": reasons})
    found = read_json(about)
    if found["fingerprint"] != mark:
        raise ConfigError(f"{out}: holds pictures of other files, or of another size. Use another --out.")
    failed = found["failed"]
    place = {name: i for i, name in enumerate(wanted) if name not in failed}
    return Album(np.load(out / "pictures.npy", mmap_mode="r"), place, failed)


def _shown(names: Sequence[str], found: Iterator[Found], black: bytes, reasons: dict[str, str]) -> Iterator[bytes]:
    """The pixels of each, black where a file cannot be read, and why not into `reasons`."""
    with Progress("reading", len(names)) as bar:
        for i, (name, pixels) in enumerate(zip(names, found, strict=True)):
            if isinstance(pixels, ImageError):
                reasons[name] = f"{pixels.reason}: {pixels}"
            yield black if isinstance(pixels, ImageError) else pixels
            bar.update(i + 1)
