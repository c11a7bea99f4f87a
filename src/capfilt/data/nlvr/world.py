"""Drawn pictures of the NLVR kind (Suhr et al., ACL 2017): three grey boxes of towers or scattered shapes.

A strip is 400 x 100 px: boxes of 100 px at x = 0, 150, 300 with dark grey between them. Places are in pixels of a box,
x to the right, y downwards.
"""

from collections.abc import Sequence
from itertools import permutations
from typing import NamedTuple

import numpy as np
from PIL import Image

from capfilt.errors import DataError

COLOURS = {"yellow": (255, 255, 0), "black": (0, 0, 0), "blue": (0, 153, 255)}
SHAPES = ("square", "circle", "triangle")
SIDES = {"small": 10, "medium": 20, "large": 30}
GROUND = (211, 211, 211)
BOX, PITCH, BLOCK = 100, 150, 20
NEAR = 1  # a gap of at most so many pixels is a touch


class Item(NamedTuple):
    """One shape in its box: (x, y) is the upper left corner of its `side` x `side` square."""

    shape: str
    colour: str
    side: int
    x: int
    y: int

    @property
    def touches(self) -> frozenset[str]:
        """The walls of the box it stands at: left, right, top, bottom."""
        gaps = {"left": self.x, "right": BOX - self.x - self.side, "top": self.y, "bottom": BOX - self.y - self.side}
        return frozenset(wall for wall, gap in gaps.items() if gap <= NEAR)


Box = tuple[Item, ...]  # from the lowest to the highest


class Scene(NamedTuple):
    """Three boxes; with `towers`, each holds one pile of squares."""

    boxes: tuple[Box, ...]
    towers: bool


def draw_scene(rng: np.random.Generator) -> Scene:
    """A scene as they are in NLVR: in two of three, towers of 1-4 blocks; else 1-8 shapes a box, free of each other."""
    towers = bool(rng.random() < 0.65)
    # One scene in five keeps to two colours, one in ten to one: else "only", "same" and "none" are hardly ever true.
    kinds = [str(c) for c in rng.permutation(list(COLOURS))[: rng.choice(3, p=(0.1, 0.2, 0.7)) + 1]]
    return Scene(tuple(_tower(rng, kinds) if towers else _scatter(rng, kinds) for _ in range(3)), towers)


def _tower(rng: np.random.Generator, colours: Sequence[str]) -> Box:
    height = int(rng.integers(1, 5))
    if rng.random() < 0.15:
        colours = [_one(rng, colours)]
    y = BOX - BLOCK - (BLOCK + 1) * np.arange(height)  # a line of ground shows between two blocks
    return tuple(Item("square", _one(rng, colours), BLOCK, 40, int(at)) for at in y)


def _scatter(rng: np.random.Generator, colours: Sequence[str]) -> Box:
    if rng.random() < 0.35:  # boxes of fewer kinds, for the same reason as above
        colours = list(rng.permutation(colours)[: int(rng.integers(1, 3))])
    shapes = list(rng.permutation(SHAPES)[: rng.choice(3, p=(0.15, 0.25, 0.6)) + 1])
    taken = np.zeros((BOX, BOX), bool)
    items = []
    for _ in range(int(rng.integers(1, 9))):
        side = int(rng.choice(list(SIDES.values())))
        for _ in range(20):
            x, y = _place(rng, BOX - side)
            near = taken[max(0, y - 1) : y + side + 1, max(0, x - 1) : x + side + 1]
            if not near.any():
                taken[y : y + side, x : x + side] = True
                items.append(Item(_one(rng, shapes), _one(rng, colours), side, x, y))
                break
    return tuple(sorted(items, key=lambda item: -item.y - item.side))


def _place(rng: np.random.Generator, room: int) -> tuple[int, int]:
    """Anywhere but in doubt: gaps are 0, or 3 pixels and more. Two in five stand at a wall, mostly right or bottom."""
    x, y = (int(rng.integers(3, room - 2)) for _ in range(2))
    wall = rng.random()
    if wall < 0.17 or wall > 0.96:
        x = 0 if rng.random() < 0.1 else room
    if wall > 0.77:
        y = 0 if rng.random() < 0.1 else room
    return x, y


def _one(rng: np.random.Generator, options: Sequence[str]) -> str:
    return str(options[int(rng.integers(len(options)))])


def paint(scene: Scene) -> np.ndarray:
    """The strip, (100, 400, 3) uint8."""
    strip = np.full((BOX, 2 * PITCH + BOX, 3), 128, np.uint8)
    for at, box in enumerate(scene.boxes):
        canvas = strip[:, at * PITCH : at * PITCH + BOX]
        canvas[:] = GROUND
        for item in box:
            patch = canvas[item.y : item.y + item.side, item.x : item.x + item.side]
            patch[_MASKS[item.shape, item.side]] = COLOURS[item.colour]
    return strip


def _mask(shape: str, side: int) -> np.ndarray:
    y, x = (np.mgrid[:side, :side] + 0.5) * 2 / side - 1
    if shape == "circle":
        return x**2 + y**2 <= 1
    return np.abs(x) <= (y + 1) / 2 if shape == "triangle" else np.ones((side, side), bool)


_MASKS = {(shape, side): _mask(shape, side) for shape in SHAPES for side in SIDES.values()}


def fold(strip: np.ndarray, px: int, order: Sequence[int] = (0, 1, 2), mirror: bool = False) -> np.ndarray:
    """The three boxes of a strip as the quarters of a square, (px, px, 3) uint8; the fourth quarter is ground.

    order: which box stands upper left, upper right, lower left. mirror: each box is seen in a mirror.

    Raises:
        DataError: the strip has another shape than NLVR's.
    """
    if strip.shape != (BOX, 2 * PITCH + BOX, 3):
        raise DataError(f"a picture of shape {strip.shape}: NLVR's are (100, 400, 3); fold takes no others")
    square = np.empty((2 * BOX, 2 * BOX, 3), np.uint8)
    square[:] = GROUND
    for quarter, box in enumerate(order):
        y, x = divmod(quarter, 2)
        cut = strip[:, box * PITCH : box * PITCH + BOX]
        square[y * BOX : (y + 1) * BOX, x * BOX : (x + 1) * BOX] = cut[:, ::-1] if mirror else cut
    return np.asarray(Image.fromarray(square).resize((px, px), Image.Resampling.BOX))


def recolour(strip: np.ndarray, names: dict[str, str]) -> np.ndarray:
    """The picture with its three colours exchanged, same shape: the map of RGB space that moves them and keeps ground.

    names: what each colour becomes; {"yellow": "blue", "blue": "yellow", "black": "black"} swaps two.
    """
    old = np.array([(*GROUND, 1), *((*COLOURS[name], 1) for name in names)], np.float64)
    new = np.array([GROUND, *(COLOURS[name] for name in names.values())], np.float64)
    moved = strip @ np.linalg.solve(old, new)[:3] + np.linalg.solve(old, new)[3]
    return np.clip(np.rint(moved), 0, 255).astype(np.uint8)


ORDERS = tuple(permutations(range(3)))
