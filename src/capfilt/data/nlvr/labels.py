"""What stands where in a drawn NLVR scene, patch by patch: labels that teach a vision tower before it hears a sentence.

Of each patch: whether an item's middle lies in it, and what its box holds. Of a patch with an item: what the item is,
what lies next above and below it, and which walls it touches. A sentence tells a bit about three boxes; this tells
dozens about each place.

Shapes: B pictures folded to a G x G grid of patches, A attributes.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from capfilt.data.nlvr.world import BOX, COLOURS, ORDERS, SHAPES, SIDES, Box, Scene, draw_scene, fold, paint
from capfilt.errors import ConfigError
from capfilt.inputs.images import normalize
from capfilt.runtime import rng

MOST = 5  # counts of one colour or shape beyond it are not told apart
OF_BOX = (9, *(MOST + 1,) * (len(COLOURS) + len(SHAPES)), len(COLOURS), len(COLOURS))
OF_ITEM = (len(SHAPES), len(COLOURS), len(SIDES), 8, len(COLOURS) + 1, len(COLOURS) + 1, 8, 2, 2, 2, 2)
CLASSES = (2, *OF_BOX, *OF_ITEM)  # of each attribute, so many
NONE = -1  # the attribute does not apply
_COLOUR = {name: i for i, name in enumerate(COLOURS)}


def labels(scene: Scene, order: Sequence[int], grid: int) -> Int[np.ndarray, "n a"]:
    """(G * G, A) class of every attribute in every patch of the scene folded in this order, NONE where it has none.

    Raises:
        ConfigError: the grid is odd: a patch would lie in two boxes.
    """
    if grid % 2:
        raise ConfigError(f"grid={grid}: an even number of patches a side is needed, as many for each box")
    out = np.full((grid, grid, len(CLASSES)), NONE, np.int64)
    out[..., 0] = 0
    half = grid // 2
    for quarter, at in enumerate(order):
        y, x = divmod(quarter, 2)
        part = out[y * half : (y + 1) * half, x * half : (x + 1) * half]
        box = scene.boxes[at]
        part[..., 1 : 1 + len(OF_BOX)] = _of_box(box)
        for i, item in enumerate(box):
            middle = ((item.y + item.side / 2) * half / BOX, (item.x + item.side / 2) * half / BOX)
            patch = part[int(middle[0]), int(middle[1])]
            if not patch[0]:  # where two share a patch, it is the lower one's
                patch[0] = 1
                patch[1 + len(OF_BOX) :] = _of_item(box, i)
    return out.reshape(grid * grid, -1)


def _of_box(box: Box) -> list[int]:
    shades, shapes = [item.colour for item in box], [item.shape for item in box]
    counts = [min(MOST, kinds.count(kind)) for kinds, all_ in ((shades, COLOURS), (shapes, SHAPES)) for kind in all_]
    return [len(box), *counts, _COLOUR[shades[0]], _COLOUR[shades[-1]]]


def _of_item(box: Box, i: int) -> list[int]:
    item, shades = box[i], [item.colour for item in box]
    above = 1 + _COLOUR[shades[i + 1]] if i + 1 < len(box) else 0
    below = 1 + _COLOUR[shades[i - 1]] if i else 0
    what = [SHAPES.index(item.shape), _COLOUR[item.colour], list(SIDES.values()).index(item.side)]
    walls = [int(wall in item.touches) for wall in ("left", "right", "top", "bottom")]
    return [*what, i, above, below, shades.count(item.colour) - 1, *walls]


def labelled_batch(
    seed: int, step: int, size: int, px: int, grid: int
) -> tuple[Float[Tensor, "b 3 h w"], Int[Tensor, "b n a"]]:
    """`size` fresh pictures and their labels; the step's batch hangs on its number alone."""
    draw = rng(seed, "nlvr labels", step)
    pictures, found = [], []
    for _ in range(size):
        scene, order = draw_scene(draw), ORDERS[int(draw.integers(len(ORDERS)))]
        pictures.append(fold(paint(scene), px, order))
        found.append(labels(scene, order, grid))
    return normalize(np.stack(pictures)), torch.from_numpy(np.stack(found))
