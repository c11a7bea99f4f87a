"""Paints scenes: antialiased alpha masks are made once, then blended at whole-pixel positions.

A shape is a test on the unit square, x and y in [-1, 1], y downwards; 6 × 6 samples a pixel give its alpha.
"""

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from capfilt.data.world_scene import BACKGROUNDS, COLOURS, Scene
from capfilt.runtime import rng

_FINE = 6  # samples along each side of a pixel
Grid = np.ndarray


class Painter:
    """Draws scenes of one picture size; masks and backgrounds are kept once made.

    px: side of the pictures in pixels.
    """

    def __init__(self, px: int):
        self.px = px
        self._tiles: dict[tuple[str, str, str, int], tuple[np.ndarray, np.ndarray]] = {}
        self._grounds: dict[str, np.ndarray] = {}

    def draw(self, scene: Scene, out: np.ndarray | None = None) -> np.ndarray:
        """The picture, (px, px, 3) uint8, written into `out` where given."""
        canvas = np.empty((self.px, self.px, 3), np.uint8) if out is None else out
        ground = self._grounds.get(scene.background)
        if ground is None:
            ground = self._grounds[scene.background] = _ground(scene.background, self.px)
        canvas[:] = ground
        for thing in scene.things:
            side = thing.side
            paint, through = self._tile(thing.shape, thing.fill, thing.colour, side)
            for x, y in thing.spots:
                patch = canvas[y : y + side, x : x + side]
                patch[:] = (paint + through * patch) // 255
        return canvas

    def _tile(self, shape: str, fill: str, colour: str, side: int) -> tuple[np.ndarray, np.ndarray]:
        """Colour times alpha plus rounding (side, side, 3) and 255 - alpha (side, side, 1), both uint16."""
        name = (shape, fill, colour, side)
        if name not in self._tiles:
            alpha = np.rint(255 * mask(shape, side, fill == "outlined"))[..., None].astype(np.uint16)
            paint = np.rint(_fill(fill, COLOURS[colour], side)).astype(np.uint16)
            self._tiles[name] = (paint * alpha + 127).astype(np.uint16), 255 - alpha
        return self._tiles[name]


def mask(shape: str, side: int, outlined: bool = False) -> np.ndarray:
    """How much of each pixel the shape covers, (side, side) in [0, 1]; with `outlined`, only its border."""
    n = side * _FINE
    x, y = _axes(n)
    inside = np.broadcast_to(_TESTS[shape](x, y), (n, n))
    if outlined:
        inside = inside & ~_shrunk(inside, round(max(1.3, 0.09 * side) * _FINE))
    return inside.reshape(side, _FINE, side, _FINE).mean((1, 3))


def _axes(n: int) -> tuple[Grid, Grid]:
    line = (np.arange(n) + 0.5) / n * 2 - 1
    return line[None, :], line[:, None]


def _shrunk(inside: Grid, by: int) -> Grid:
    """What is left when a brush of radius `by` eats the border away."""
    n = len(inside)
    padded = np.pad(inside, by)
    left = inside.copy()
    for turn in np.arange(24) * (2 * np.pi / 24):
        dx, dy = round(by * np.cos(turn)), round(by * np.sin(turn))
        left &= padded[by + dy : by + dy + n, by + dx : by + dx + n]
    return left


def _fill(fill: str, colour: Sequence[int], side: int) -> np.ndarray:
    """The paint under the mask, (side, side, 3) in [0, 255]: the colour, patterned with a lighter or darker tint."""
    base = np.array(colour, float)
    tint = 0.4 * base + 0.6 * (255.0 if base.mean() < 150 else 20.0)
    x, y = (axis * side / 2 for axis in _axes(side))  # px from the centre
    cell = max(2.0, side / 6)
    if fill == "striped":
        second = (np.floor((x + y) / cell) % 2 == 0).astype(float)
    elif fill == "dotted":
        u, v = (np.mod(axis, 1.6 * cell) - 0.8 * cell for axis in (x, y))
        second = np.clip(0.5 * cell + 0.5 - np.hypot(u, v), 0, 1)
    elif fill == "checkered":
        second = ((np.floor(x / cell) + np.floor(y / cell)) % 2 == 0).astype(float)
    elif fill == "gradient":
        second = np.broadcast_to((y / side + 0.5) * 0.9, (side, side))
    elif fill == "speckled":
        second = (rng("speckles", side).random((side, side)) < 0.3).astype(float)
    else:
        second = np.zeros((side, side))
    second = np.broadcast_to(second, (side, side))[..., None]
    return base * (1 - second) + tint * second


def _ground(name: str, px: int) -> np.ndarray:
    """One background, (px, px, 3) uint8."""
    tones = np.array(BACKGROUNDS[name], float)
    if len(tones) == 1:
        return np.broadcast_to(tones[0], (px, px, 3)).astype(np.uint8)
    x, y = ((axis + 1) * 48 for axis in _axes(px))  # textures are laid out on a 96-unit square, whatever px is
    share = np.clip(np.broadcast_to(_TEXTURES[name](x, y), (px, px)), 0, 1)[..., None]
    return np.rint(tones[0] * (1 - share) + tones[1] * share).astype(np.uint8)


def _grain(name: str, shape: tuple[int, int]) -> Grid:
    return rng("texture", name).random(shape)


def _bricks(x: Grid, y: Grid) -> Grid:
    row = np.floor(y / 8)
    return (np.mod(y, 8) < 1.3) | (np.mod(x + 8 * np.mod(row, 2), 16) < 1.3)


def _wood(x: Grid, y: Grid) -> Grid:
    rings = 0.5 + 0.5 * np.sin(y * 1.1 + 2 * np.sin(x / 17) + np.sin(x / 7 + y / 3))
    return np.where(np.mod(y, 24) < 1.3, 1.0, 0.7 * rings)


def _night(x: Grid, y: Grid) -> Grid:
    return (_grain("night", (y.size, x.size)) < 0.012).astype(float)


def _grass(x: Grid, y: Grid) -> Grid:
    return _grain("grass", (y.size, x.size)).cumsum(0) % 1.0


def _sand(x: Grid, y: Grid) -> Grid:
    return _grain("sand", (y.size, x.size)) ** 2


def _dots(x: Grid, y: Grid) -> Grid:
    return np.clip(4.0 - np.hypot(np.mod(x, 16) - 8, np.mod(y, 16) - 8), 0, 1)


_TEXTURES: dict[str, Callable[[Grid, Grid], Grid]] = {
    "bricks": _bricks,
    "wood": _wood,
    "grass": _grass,
    "sky": lambda x, y: 0.5 + 0.5 * np.sin(x / 13 + 1.5 * np.sin(y / 19)) * np.sin(y / 9),
    "night": _night,
    "water": lambda x, y: np.sin(y * 0.7 + 1.5 * np.sin(x / 6)) > 0.55,
    "sand": _sand,
    "checks": lambda x, y: np.mod(np.floor(x / 12) + np.floor(y / 12), 2),
    "stripes": lambda x, y: np.mod(np.floor(x / 8), 2) + 0 * y,
    "graph": lambda x, y: (np.mod(x, 10) < 1.1) | (np.mod(y, 10) < 1.1),
    "polka": _dots,
    "sunset": lambda x, y: y / 96 + 0 * x,
}


def _polygon(*corners: tuple[float, float]) -> Callable[[Grid, Grid], Grid]:
    """A test that counts how often a ray to the right crosses the border."""

    def test(x: Grid, y: Grid) -> Grid:
        odd = np.zeros(np.broadcast_shapes(x.shape, y.shape), bool)
        for (x0, y0), (x1, y1) in zip(corners, (*corners[1:], corners[0]), strict=True):
            if y0 != y1:
                crosses = (y0 > y) != (y1 > y)
                odd ^= crosses & (x < x0 + (y - y0) * (x1 - x0) / (y1 - y0))
        return odd

    return test


def _spokes(points: int, inner: float = 1.0) -> list[tuple[float, float]]:
    """Corners around the centre, the first on top; with `inner` below 1, a star's."""
    n = points if inner == 1.0 else 2 * points
    turns = [2 * np.pi * i / n for i in range(n)]
    radii = [1.0 if inner == 1.0 or i % 2 == 0 else inner for i in range(n)]
    return [(float(r * np.sin(a)), float(-r * np.cos(a))) for a, r in zip(turns, radii, strict=True)]


def _discs(x: Grid, y: Grid, discs: Iterable[tuple[float, float, float]]) -> Grid:
    return np.any([np.hypot(x - cx, y - cy) <= r for cx, cy, r in discs], axis=0)


def _heart(x: Grid, y: Grid) -> Grid:
    u, v = 1.17 * x, -1.17 * y + 0.12
    return (u * u + v * v - 1) ** 3 <= u * u * v**3


def _drop(x: Grid, y: Grid) -> Grid:
    return _discs(x, y, [(0, 0.36, 0.64)]) | ((np.abs(x) <= 0.57 * (y + 1) / 1.07) & (y <= 0.07))


def _cloud(x: Grid, y: Grid) -> Grid:
    puffs = _discs(x, y, [(-0.6, 0.2, 0.4), (-0.1, -0.2, 0.5), (0.55, 0.15, 0.45)])
    return puffs | ((np.abs(x) <= 0.6) & (y >= 0.1) & (y <= 0.6))


def _flower(x: Grid, y: Grid) -> Grid:
    radius, turn = np.hypot(x, y), np.arctan2(y, x)
    return (radius <= 0.68 + 0.32 * np.cos(5 * turn + np.pi / 2)) & (radius >= 0.2)


def _mushroom(x: Grid, y: Grid) -> Grid:
    cap = (x * x + ((y - 0.05) / 1.05) ** 2 <= 1) & (y <= 0.05)
    return cap | ((np.abs(x) <= 0.3) & (y > 0) & (y <= 1))


def _tree(x: Grid, y: Grid) -> Grid:
    tiers = _polygon((0, -1), (0.5, -0.3), (0.28, -0.3), (0.75, 0.5), (-0.75, 0.5), (-0.28, -0.3), (-0.5, -0.3))
    return tiers(x, y) | ((np.abs(x) <= 0.17) & (y >= 0.4) & (y <= 1))


def _house(x: Grid, y: Grid) -> Grid:
    walls = (np.abs(x) <= 0.72) & (y >= -0.2) & (y <= 1)
    door = (np.abs(x) <= 0.2) & (y >= 0.45)
    return (walls & ~door) | _polygon((0, -1), (1, -0.15), (-1, -0.15))(x, y)


_TESTS: dict[str, Callable[[Grid, Grid], Grid]] = {
    "circle": lambda x, y: np.hypot(x, y) <= 0.98,
    "square": lambda x, y: (np.abs(x) <= 0.88) & (np.abs(y) <= 0.88),
    "triangle": _polygon((0, -0.95), (1, 0.85), (-1, 0.85)),
    "star": _polygon(*_spokes(5, 0.4)),
    "cross": lambda x, y: (np.abs(x) <= 0.3) | (np.abs(y) <= 0.3),
    "ring": lambda x, y: (np.hypot(x, y) <= 1) & (np.hypot(x, y) >= 0.56),
    "heart": _heart,
    "moon": lambda x, y: (np.hypot(x, y) <= 1) & (np.hypot(x - 0.5, y + 0.1) >= 0.82),
    "diamond": _polygon((0, -1), (0.68, 0), (0, 1), (-0.68, 0)),
    "oval": lambda x, y: np.hypot(x, y / 0.56) <= 1,
    "rectangle": lambda x, y: (np.abs(y) <= 0.5) & (np.abs(x) <= 1),
    "hexagon": _polygon(*_spokes(6)),
    "arrow": _polygon((-1, -0.3), (0.1, -0.3), (0.1, -0.85), (1, 0), (0.1, 0.85), (0.1, 0.3), (-1, 0.3)),
    "semicircle": lambda x, y: (np.hypot(x, y - 0.5) <= 1) & (y <= 0.5),
    "drop": _drop,
    "cloud": _cloud,
    "house": _house,
    "tree": _tree,
    "flower": _flower,
    "bolt": _polygon((0.25, -1), (-0.6, 0.15), (-0.05, 0.15), (-0.35, 1), (0.6, -0.25), (0.05, -0.25), (0.5, -1)),
    "mushroom": _mushroom,
    "crown": _polygon((-1, -0.6), (-0.45, 0.0), (0, -0.8), (0.45, 0.0), (1, -0.6), (0.8, 0.75), (-0.8, 0.75)),
}
