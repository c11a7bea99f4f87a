"""Labels say what the scene holds, where it is, whatever the order of boxes."""

import numpy as np
import pytest

from capfilt.data.nlvr.labels import CLASSES, NONE, OF_BOX, labelled_batch, labels
from capfilt.data.nlvr.world import Item, Scene
from capfilt.errors import ConfigError

YELLOW, BLACK, BLUE = range(3)


def test_a_tower_is_named_block_by_block():
    tower = tuple(Item("square", colour, 20, 40, 80 - 21 * i) for i, colour in enumerate(("yellow", "blue", "black")))
    scene = Scene((tower, tower[:1], tower[1:2]), True)
    found = labels(scene, (2, 0, 1), 10).reshape(10, 10, -1)
    middle = found[:5, 5:]  # the first box stands upper right
    assert (middle[..., 0] == 1).sum() == 3
    assert (middle[..., 1 : 1 + len(OF_BOX)] == [3, 1, 1, 1, 3, 0, 0, YELLOW, BLACK]).all()
    base, second, top = middle[4, 2], middle[3, 2], middle[2, 2]
    assert base[10:].tolist() == [0, YELLOW, 1, 0, 1 + BLUE, 0, 0, 0, 0, 0, 1]  # stands on the floor
    assert second[10:].tolist() == [0, BLUE, 1, 1, 1 + BLACK, 1 + YELLOW, 0, 0, 0, 0, 0]
    assert top[10:].tolist() == [0, BLACK, 1, 2, 0, 1 + BLUE, 0, 0, 0, 0, 0]
    assert (middle[0, 0, 10:] == NONE).all()
    assert (found[5:, 5:, 1:] == NONE).all() and (found[5:, 5:, 0] == 0).all()  # the empty quarter


def test_walls_and_sizes_of_scattered_things():
    corner = Item("circle", "black", 30, 70, 0)
    found = labels(Scene(((corner,),) * 3, False), (0, 1, 2), 10).reshape(10, 10, -1)
    patch = found[0, 4]
    assert patch[0] == 1 and patch[10:].tolist() == [1, BLACK, 2, 0, 0, 0, 0, 0, 1, 1, 0]


def test_a_batch_hangs_on_its_step_and_stays_within_its_classes():
    pixels, wanted = labelled_batch(0, 3, 16, 40, 10)
    again, other = labelled_batch(0, 3, 16, 40, 10), labelled_batch(0, 4, 16, 40, 10)
    assert (pixels == again[0]).all() and (wanted == again[1]).all() and (wanted != other[1]).any()
    assert pixels.shape == (16, 3, 40, 40) and wanted.shape == (16, 100, len(CLASSES))
    most = wanted.flatten(0, 1).numpy().max(0)
    assert (most < np.array(CLASSES)).all() and (most >= 1).all()


def test_an_odd_grid_is_refused():
    box = (Item("circle", "black", 30, 70, 0),)
    with pytest.raises(ConfigError, match="even number"):
        labels(Scene((box,) * 3, False), (0, 1, 2), 9)
