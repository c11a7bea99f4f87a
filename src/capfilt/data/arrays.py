"""Arrays that are written piece by piece, for they are larger than memory."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np


def write_bytes(path: Path, shape: tuple[int, ...], pieces: Iterable[bytes]) -> None:
    """An `.npy` file of uint8 from pieces that come to `shape`; unlike np.save, it says why when the disk refuses."""
    with open(path, "wb") as handle:
        np.lib.format.write_array_header_1_0(handle, {"descr": "|u1", "fortran_order": False, "shape": shape})
        for piece in pieces:
            handle.write(piece)
