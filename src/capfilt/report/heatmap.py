"""Heat over a picture, a tile a word, as one PNG. Drawn with pillow alone."""

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from capfilt.errors import DataError
from capfilt.report.words import visible

TILE_PX, LABEL_PX, GAP_PX, COLUMNS = 240, 30, 12, 5
LEAST_PX = 120  # room for a word under a narrow picture
INK, PALE, PAPER = (24, 24, 27), (113, 113, 122), (255, 255, 255)
DIMMED = 0.55  # how light the grey photograph under the heat is
COVER = 0.8  # how much of the photograph the greatest heat hides


def heat_png(image: np.ndarray, words: Sequence[str], maps: np.ndarray, note: str = "") -> bytes:
    """The picture, then one tile a word with its heat over the picture.

    image: (H, W, 3) uint8, of any shape; drawn whole.
    maps:  (W, g, g), finite and not negative. Each tile is stretched to its own greatest heat; beside its word stands
           the word's share of all heat, so that a word which hardly looks is known for it.
    note:  under the picture.

    Raises DataError where the arrays are not of these shapes.
    """
    maps = np.asarray(maps, np.float32)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise DataError(f"heat map: the picture must be (H, W, 3) uint8, got {image.shape} {image.dtype}")
    if maps.ndim != 3 or len(maps) != len(words) or 0 in maps.shape[1:]:
        raise DataError(f"heat map: {len(words)} words need as many maps (W, g, g), got {maps.shape}")
    if not (np.isfinite(maps).all() and (maps >= 0).all()):
        raise DataError("heat map: heat must be finite and not negative")
    longest = max(image.shape[:2])
    high, wide = (max(1, round(side * TILE_PX / longest)) for side in image.shape[:2])
    picture = Image.fromarray(image).resize((wide, high), Image.Resampling.LANCZOS)
    columns = min(COLUMNS, len(words) + 1)
    rows = -(-(len(words) + 1) // columns)
    across, down = max(wide, LEAST_PX), high + LABEL_PX
    page = Image.new("RGB", (columns * (across + GAP_PX) + GAP_PX, rows * (down + GAP_PX) + GAP_PX), PAPER)
    total = float(maps.sum())
    shares = [f"{m.sum() / total:.0%}" if total else "" for m in maps]
    tiles = [(picture, note, ""), *((warmed(picture, m), w, s) for m, w, s in zip(maps, words, shares, strict=True))]
    for i, (tile, label, share) in enumerate(tiles):
        x = GAP_PX + i % columns * (across + GAP_PX)
        y = GAP_PX + i // columns * (down + GAP_PX)
        page.paste(tile, (x, y))
        _write(page, (x, y + high + 4), label, share, across)
    buffer = io.BytesIO()
    page.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def warmed(picture: Image.Image, heat: np.ndarray) -> Image.Image:
    """The picture in dim grey, and over it the heat (g, g), stretched to its own greatest value."""
    grey = np.asarray(picture.convert("L").convert("RGB"), np.float32) * DIMMED
    peak = float(heat.max())
    spread = Image.fromarray(heat / peak if peak > 0 else heat).resize(picture.size, Image.Resampling.BICUBIC)
    level = np.clip(np.asarray(spread), 0, 1)
    cover = COVER * level[..., None]
    mixed = grey * (1 - cover) + colours(level) * cover
    return Image.fromarray(np.rint(mixed).astype(np.uint8))


def colours(level: np.ndarray) -> np.ndarray:
    """[0, 1] → sRGB in 0..255, from deep violet by red to light yellow.

    A straight path in OKLab's lightness (Ottosson 2020), so that equal steps of heat look equal and a print in grey
    keeps their order.
    """
    t = np.asarray(level, np.float32)
    light = 0.30 + 0.64 * t
    hue = np.radians(300 + 165 * t)
    chroma = 0.05 + 0.14 * np.sin(np.pi * np.clip(0.12 + 0.76 * t, 0, 1))
    a, b = chroma * np.cos(hue), chroma * np.sin(hue)
    lms = np.stack(
        (
            light + 0.3963377774 * a + 0.2158037573 * b,
            light - 0.1055613458 * a - 0.0638541728 * b,
            light - 0.0894841775 * a - 1.2914855480 * b,
        ),
        axis=-1,
    )
    to_rgb = np.array(
        [
            (4.0767416621, -3.3077115913, 0.2309699292),
            (-1.2684380046, 2.6097574011, -0.3413193965),
            (-0.0041960863, -0.7034186147, 1.7076147010),
        ]
    )
    linear = np.clip(lms**3 @ to_rgb.T, 0, 1)
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def _write(page: Image.Image, at: tuple[int, int], label: str, share: str, room: int) -> None:
    draw, font, small = ImageDraw.Draw(page), ImageFont.load_default(17), ImageFont.load_default(13)
    beside = draw.textlength(share, small)
    draw.text(at, _fitting(draw, font, visible(label), room - beside - 6), INK, font)
    draw.text((at[0] + room - beside, at[1] + 4), share, PALE, small)


def _fitting(draw: ImageDraw.ImageDraw, font, text: str, room: float) -> str:
    """The text, its end cut off where it is too long."""
    text = text[:200]  # no need to measure what cannot fit
    if draw.textlength(text, font) <= room:
        return text
    while text and draw.textlength(text + "...", font) > room:
        text = text[:-1]
    return text + "..."
