"""What can be said of an image without a model: its bytes, its header, how it looks, whether anything is on it.

`looks` is the DCT hash of Zauner's survey ("Implementation and benchmarking of perceptual image hash functions", 2010):
of the grey picture's cosine transform the 8 × 8 lowest frequencies without the constant ones, each a bit: above their
median or not. Recompressing and resizing move a few bits of the 64, another picture about half. All numbers are whole
and below 2^53, so that it is the same on every machine.

A poisoned image costs its row where `decoders` are processes (`data.decoders`). The decoders' own reasons apply, those
of `data.refs` for what cannot be loaded, and `no_image` for a row that names none.
"""

import hashlib
from collections import deque
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from jaxtyping import UInt8

from capfilt.clean.columns import MEASURED, ROWS
from capfilt.data.decoders import Decoded, Decoders
from capfilt.errors import ImageError

SIDE = 64  # px: the size that decoders for `measure` make
_LOW = 8  # frequencies a side
_WEIGHTS = np.array(
    [299, 587, 114], np.float32
)  # of red, green and blue in a grey level (ITU-R BT.601), in thousandths
_ANGLES = np.pi / SIDE * np.outer(np.arange(1, _LOW + 1), np.arange(SIDE) + 0.5)  # (8, 64): frequencies 1 to 8
_COSINES = np.rint(2**10 * np.cos(_ANGLES))


class Loads(Protocol):
    """What fetches an image's bytes (`data.refs.Images`)."""

    def load(self, ref: str) -> bytes:
        """Raises ImageError."""
        ...


def measure(rows: pa.Table, images: Loads, decoders: Decoders) -> pa.Table:
    """INTAKE → ROWS: every image is loaded and decoded; one that cannot be fails its row, which says why.

    decoders: for pictures of `SIDE` px; how far they read ahead bounds the bytes in memory. The same bytes twice are
        decoded once.
    """
    refs, failed = rows["ref"].to_pylist(), rows["failed"].to_pylist()
    errors = rows["error"].to_pylist()
    found: list[dict[str, Any]] = [{} for _ in refs]
    first: dict[str, int] = {}  # sha256 → the row that is decoded
    asked: deque[int] = deque()

    def fail(at: int, error: ImageError) -> None:
        failed[at], errors[at] = error.reason, str(error)

    def wanted() -> Iterator[bytes]:
        for at, ref in enumerate(refs):
            if failed[at] is not None:
                continue
            try:
                if ref is None:
                    raise ImageError("no_image", "the row names no image")
                data = images.load(ref)
            except ImageError as error:
                fail(at, error)
                continue
            found[at] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
            if first.setdefault(found[at]["sha256"], at) == at:
                asked.append(at)
                yield data

    for answer in decoders.decode(wanted()):
        at = asked.popleft()
        if isinstance(answer, ImageError):
            fail(at, answer)
        else:
            found[at] |= _told(answer)
    for at, one in enumerate(found):
        if one and (decoded := first[one["sha256"]]) != at:
            found[at], failed[at], errors[at] = found[decoded], failed[decoded], errors[decoded]
    measured = pa.Table.from_pylist(found, schema=MEASURED)
    columns = {name: rows[name] for name in rows.column_names} | {"failed": failed, "error": errors}
    return pa.table(columns | {name: measured[name] for name in MEASURED.names}, schema=ROWS)


def looks(pixels: UInt8[np.ndarray, "64 64 3"]) -> int:
    """The picture's perceptual hash, 64 bits; of pictures that resemble each other few bits differ."""
    grey = (pixels.reshape(-1, 3).astype(np.float32) @ _WEIGHTS).reshape(SIDE, SIDE)  # in thousandths, below 2^24
    frequencies = (_COSINES @ grey @ _COSINES.T).ravel()
    low, high = np.sort(frequencies)[_LOW**2 // 2 - 1 :][:2]
    above = np.packbits(frequencies > (low + high) / 2, bitorder="little")
    return int.from_bytes(above.tobytes(), "little")


def spread(pixels: UInt8[np.ndarray, "64 64 3"]) -> float:
    """Standard deviation of the levels in the colour where it is largest; 0 for one flat colour, to 127.5."""
    levels = pixels.reshape(SIDE, SIDE * 3).astype(np.float32)  # sums of SIDE squares stay below 2^24
    means, squares = (
        x.sum(0, dtype=np.float32).reshape(SIDE, 3).mean(0, dtype=np.float64) / SIDE for x in (levels, levels**2)
    )
    return float(np.sqrt((squares - means**2).max()))


def _told(decoded: Decoded) -> dict[str, Any]:
    info, pixels = decoded.info, decoded.pixels
    assert info is not None  # of encoded bytes
    header = {"format": info.format, "width": info.width, "height": info.height, "frames": info.frames}
    return {**header, "notes": list(info.notes), "looks": looks(pixels), "spread": spread(pixels)}
