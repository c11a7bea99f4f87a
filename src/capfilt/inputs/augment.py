"""Training augmentation as BLIP did it: random crop, flip, then two of ten small distortions.

Every random decision comes from the generator that is handed in, so a row's pixels hang on its own seed. Affine
distortions sample bilinearly on a grid of 1/32 px, as the original's image library does: the same decisions give the
same bytes.

One deviation, on purpose: the original's AutoContrast turns a channel without a true black into plain white (its
minimum wraps around in 8 bits); here the channel is stretched, as the operation means. `faithful` brings it back.

Shapes: H height, W width.
"""

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps

from capfilt.inputs.images import to_pixels

OPS = (
    "identity",
    "autocontrast",
    "brightness",  # at magnitude 5 of 10 its factor is 0.5 · 1.8 + 0.1 = 1: it changes nothing, but takes its draw
    "sharpness",  # the same
    "equalize",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
    "rotate",
)
OPS_PER_IMAGE, OP_CHANCE = 2, 0.5
AMOUNT = {"shear_x": 0.15, "shear_y": 0.15, "translate_x": 5.0, "translate_y": 5.0, "rotate": 15.0}  # magnitude 5
RATIO = (3 / 4, 4 / 3)
FILL = 128
_GRID = 32  # sample positions are rounded to this part of a pixel
_FINE = 1024  # and computed in this one

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class AugmentConfig:
    """How views are made.

    crop_min: smallest part of the area that a crop keeps, in (0, 1]; the paper uses 0.2 from scratch, 0.5 later.
    faithful: AutoContrast with the original's fault.
    """

    crop_min: float = 0.5
    flip: bool = True
    randaugment: bool = True
    faithful: bool = False


def augment(image: Image.Image | np.ndarray, px: int, config: AugmentConfig, rng: np.random.Generator) -> np.ndarray:
    """One training view of a picture, or of its (H, W, 3) uint8 pixels: (px, px, 3) uint8."""
    picture = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    box = random_box(picture.width, picture.height, config.crop_min, rng)
    pixels = crop(picture, box, px, flip=config.flip and rng.random() < 0.5)
    if config.randaugment:
        for op in rng.choice(OPS, OPS_PER_IMAGE):
            if rng.random() <= OP_CHANCE:
                sign = 1.0 if rng.random() < 0.5 else -1.0
                pixels = distort(pixels, str(op), sign * AMOUNT.get(str(op), 0.0), config.faithful)
    return pixels


def random_box(width: int, height: int, crop_min: float, rng: np.random.Generator) -> Box:
    """A crop (top, left, height, width) in px: area uniform in [crop_min, 1] of the whole, log of the ratio uniform."""
    for _ in range(10):
        area = width * height * rng.uniform(crop_min, 1.0)
        ratio = math.exp(rng.uniform(math.log(RATIO[0]), math.log(RATIO[1])))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return int(rng.integers(0, height - h + 1)), int(rng.integers(0, width - w + 1)), h, w
    w, h = width, height  # too long or too wide for any such box: the middle, at the nearest ratio
    if width < RATIO[0] * height:
        h = min(height, max(1, round(width / RATIO[0])))
    elif width > RATIO[1] * height:
        w = min(width, max(1, round(height * RATIO[1])))
    return (height - h) // 2, (width - w) // 2, h, w


def crop(image: Image.Image, box: Box, px: int, flip: bool = False) -> np.ndarray:
    """Cuts out (top, left, height, width), resizes bicubically to px × px, mirrors. (px, px, 3) uint8."""
    top, left, height, width = box
    pixels = to_pixels(image.crop((left, top, left + width, top + height)), px)
    return np.ascontiguousarray(pixels[:, ::-1]) if flip else pixels


def distort(pixels: np.ndarray, op: str, amount: float = 0.0, faithful: bool = False) -> np.ndarray:
    """Applies one of `OPS` to (H, W, 3) uint8.

    amount:   signed; px for translate, degrees for rotate, else a ratio.
    faithful: AutoContrast as the original has it: a channel that is not constant and never 0 turns white.
    """
    if op == "autocontrast":
        stretched = np.array(ImageOps.autocontrast(Image.fromarray(pixels)))
        if faithful:
            low, high = pixels.min(axis=(0, 1)), pixels.max(axis=(0, 1))
            stretched[..., (low > 0) & (low < high)] = 255
        return stretched
    if op == "equalize":
        return np.asarray(ImageOps.equalize(Image.fromarray(pixels)))
    if op not in AMOUNT:
        return pixels
    return _warp(pixels, _matrix(op, amount, pixels.shape[1], pixels.shape[0]))


def _matrix(op: str, amount: float, width: int, height: int) -> np.ndarray:
    """(2, 3) float64: where a pixel (x, y, 1) goes."""
    if op == "rotate":
        turn = math.radians(amount)
        c, s, cx, cy = math.cos(turn), math.sin(turn), width / 2, height / 2
        return np.array([[c, s, (1 - c) * cx - s * cy], [-s, c, s * cx + (1 - c) * cy]])
    a = float(np.float32(amount))  # the original keeps these matrices in single precision
    return {
        "shear_x": np.array([[1, a, 0], [0, 1, 0]]),
        "shear_y": np.array([[1, 0, 0], [a, 1, 0]]),
        "translate_x": np.array([[1, 0, -a], [0, 1, 0]]),
        "translate_y": np.array([[1, 0, 0], [0, 1, -a]]),
    }[op].astype(np.float64)


def _warp(pixels: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Bilinear warp with fixed-point positions; beyond the border lies grey."""
    height, width = pixels.shape[:2]
    back = np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))
    x, y = np.arange(width), np.arange(height)[:, None]
    u, v = (  # source position of each pixel, in 1/32 px
        (np.rint(row[0] * x * _FINE).astype(np.int64) + np.rint((row[1] * y + row[2]) * _FINE).astype(np.int64) + 16)
        >> 5
        for row in back[:2]
    )
    margin = np.full((height + 2, width + 2, 3), FILL, np.int32)
    margin[1:-1, 1:-1] = pixels
    left, top, dx, dy = u // _GRID, v // _GRID, (u % _GRID).astype(np.int32), (v % _GRID).astype(np.int32)
    x0, x1 = np.clip(left + 1, 0, width + 1), np.clip(left + 2, 0, width + 1)  # +1: the margin's offset
    y0, y1 = np.clip(top + 1, 0, height + 1), np.clip(top + 2, 0, height + 1)
    dx, dy = dx[..., None], dy[..., None]
    above = margin[y0, x0] * (_GRID - dx) + margin[y0, x1] * dx
    below = margin[y1, x0] * (_GRID - dx) + margin[y1, x1] * dx
    return ((above * (_GRID - dy) + below * dy + _FINE // 2) // _FINE).astype(np.uint8)
