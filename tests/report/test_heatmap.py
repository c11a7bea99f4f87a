"""The heat map's picture: where the heat lies, what a stranger's words and shapes do to it."""

import io

import numpy as np
import pytest
from PIL import Image

from capfilt.errors import DataError
from capfilt.report.heatmap import COLUMNS, GAP_PX, LABEL_PX, TILE_PX, colours, heat_png, warmed


def drawn(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def test_heat_lies_where_the_map_says():
    heat = np.zeros((4, 4), np.float32)
    heat[0, 3] = 2e-6  # however small, the greatest is shown as such
    tile = np.asarray(warmed(Image.new("RGB", (80, 80), "white"), heat), int)
    spread = np.ptp(tile, axis=2)  # the photograph is grey, heat is not
    assert spread[5, 75] > 60 and spread[40:, :40].max() == 0
    cold = np.asarray(warmed(Image.new("RGB", (8, 8), "white"), np.zeros((2, 2), np.float32)), int)
    assert np.ptp(cold) == 0


def test_hotter_is_always_lighter():
    rgb = colours(np.linspace(0, 1, 256))
    assert rgb.min() >= 0 and rgb.max() <= 255
    luminance = (rgb / 255) ** 2.2 @ (0.2126, 0.7152, 0.0722)
    assert (np.diff(luminance) > 0).all()


@pytest.mark.parametrize("count", [1, 4, 5, 13])
def test_a_tile_a_word(count: int):
    words = [f"word{i}" for i in range(count)]
    page = drawn(heat_png(np.full((30, 60, 3), 200, np.uint8), words, np.ones((count, 3, 3)), "match 0.5"))
    columns = min(COLUMNS, count + 1)
    rows = -(-(count + 1) // columns)
    assert page.width == columns * (TILE_PX + GAP_PX) + GAP_PX
    assert page.height == rows * (TILE_PX // 2 + LABEL_PX + GAP_PX) + GAP_PX


def test_labels_stay_in_their_column():
    words = ["x" * 5000, "a\nb\x00\u202e", "Ω漢字🐕", "", "%s{}"]
    page = drawn(heat_png(np.zeros((40, 40, 3), np.uint8), words, np.ones((5, 2, 2))))
    pixels = np.asarray(page)
    gaps = [GAP_PX + (i + 1) * TILE_PX + i * GAP_PX for i in range(COLUMNS - 1)]
    assert all((pixels[:, x : x + GAP_PX - 2] == 255).all() for x in gaps)  # an x may reach a pixel to its left
    assert (pixels[GAP_PX + TILE_PX : GAP_PX + TILE_PX + LABEL_PX] < 100).any()


@pytest.mark.parametrize("shape", [(1, 3000, 3), (3000, 1, 3), (1, 1, 3)])
def test_any_shape_of_picture(shape: tuple[int, ...]):
    drawn(heat_png(np.zeros(shape, np.uint8), ["a"], np.zeros((1, 2, 2))))


@pytest.mark.parametrize(
    ("image", "maps", "match"),
    [
        (np.zeros((4, 4), np.uint8), np.zeros((1, 2, 2)), "picture"),
        (np.zeros((4, 4, 3), np.float32), np.zeros((1, 2, 2)), "picture"),
        (np.zeros((4, 4, 3), np.uint8), np.zeros((2, 2, 2)), "1 words"),
        (np.zeros((4, 4, 3), np.uint8), np.full((1, 2, 2), np.nan), "finite"),
        (np.zeros((4, 4, 3), np.uint8), np.full((1, 2, 2), -1.0), "negative"),
    ],
)
def test_other_arrays_are_refused(image: np.ndarray, maps: np.ndarray, match: str):
    with pytest.raises(DataError, match=match):
        heat_png(image, ["a"], maps)
