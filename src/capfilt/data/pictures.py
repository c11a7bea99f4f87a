"""Pictures or clips of named files, decoded once into one array at the size they are used in; what cannot be is said.

Shapes: M files, pictures of S x S pixels, F frames a clip.
"""

import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from capfilt.config import fingerprint
from capfilt.data.arrays import write_bytes
from capfilt.data.decoders import Decoders
from capfilt.data.table import Pictures
from capfilt.data.video import frames
from capfilt.errors import ConfigError, DataError, ImageError
from capfilt.files import atomic, read_json, write_json
from capfilt.progress import Progress

AT_ONCE = 256  # files in memory
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


def open_album(names: Iterable[str], out: Path, px: int, workers: int = 0) -> Album:
    """Reads image files into `out`, each once, squashed to px x px; a second call maps what is there.

    workers: processes that decode; as many as there are processor cores if 0.

    Raises:
        ConfigError: `out` holds pictures of other files or of another size.
        DataError: not one file could be read.
    """

    def pictures(wanted: Sequence[str]) -> Iterator[Found]:
        with Decoders(workers or os.cpu_count() or 1, px) as decoders:
            for start in range(0, len(wanted), AT_ONCE):
                read = [_read(name) for name in wanted[start : start + AT_ONCE]]
                decoded = decoders.decode(data for data in read if isinstance(data, bytes))
                for data in read:
                    found = next(decoded) if isinstance(data, bytes) else data
                    yield found if isinstance(found, ImageError) else found.pixels

    return _album(list(dict.fromkeys(names)), out, px, (), pictures)


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

    return _album(list(dict.fromkeys(names)), out, px, (count,), clips)


def _album(
    wanted: list[str], out: Path, px: int, clip: tuple[int, ...], decode: Callable[[Sequence[str]], Iterator[Found]]
) -> Album:
    about, shape = out / "album.json", (*clip, px, px, 3)
    mark = fingerprint({"names": wanted, "px": px, **({"frames": clip} if clip else {})})
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


def _read(name: str) -> bytes | ImageError:
    try:
        return Path(name).read_bytes()
    except FileNotFoundError:
        return ImageError("missing_file", "no such file")
    except (OSError, ValueError) as error:  # the latter for a name that no file can have
        return ImageError("unreadable", getattr(error, "strerror", None) or str(error))
