"""An array written piece by piece is the array."""

import numpy as np

from capfilt.data.arrays import write_bytes


def test_pieces_come_to_the_whole(tmp_path):
    whole = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    write_bytes(tmp_path / "a.npy", whole.shape, (row.tobytes() for row in whole))
    found = np.load(tmp_path / "a.npy", mmap_mode="r")
    np.testing.assert_array_equal(found, whole)
