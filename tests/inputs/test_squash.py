"""Resizing on the device against Pillow's: one level at most, and hardly anywhere."""

import numpy as np
import pytest
import torch

from capfilt.inputs.images import to_pixels
from capfilt.inputs.squash import squash


def picture(kind: str, height: int, width: int) -> np.ndarray:
    random = np.random.default_rng(height)
    if kind == "noise":
        return random.integers(0, 256, (height, width, 3), np.uint8)
    if kind == "edges":  # black and white: bicubic overshoots at each edge, and Pillow cuts that off after each pass
        return np.repeat(255 * random.integers(0, 2, (height, width, 1), np.uint8), 3, axis=2)
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([255 * x / width, 255 * y / height, 127 + 120 * np.sin(x / 9)], -1).astype(np.uint8)


@pytest.mark.parametrize("size", [(200, 300), (97, 33), (640, 48), (64, 64), (40, 500)])
@pytest.mark.parametrize("kind", ["noise", "edges", "waves"])
def test_it_is_pillows_but_for_a_level_here_and_there(kind, size):
    image = picture(kind, *size)
    off = np.abs(squash(torch.from_numpy(image), 64).numpy().astype(int) - to_pixels(image, 64))
    assert off.max() <= 1 and (off > 0).mean() < 1e-3


def test_frames_of_a_clip_are_squashed_alike():
    clip = np.stack([picture("noise", 50, 70), picture("edges", 50, 70)])
    found = squash(torch.from_numpy(clip), 32)
    assert found.shape == (2, 32, 32, 3) and found.dtype == torch.uint8
    for one, frame in zip(found, clip, strict=True):
        assert torch.equal(one, squash(torch.from_numpy(frame), 32))
