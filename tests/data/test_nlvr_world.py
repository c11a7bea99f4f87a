"""Drawn NLVR pictures: scenes as promised, painted where they say, folded and recoloured without loss."""

import numpy as np
import pytest

from capfilt.data.nlvr.world import BOX, COLOURS, GROUND, PITCH, Item, Scene, draw_scene, fold, paint, recolour
from capfilt.errors import DataError
from capfilt.runtime import rng


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    draw = rng("test scenes")
    return [draw_scene(draw) for _ in range(200)]


def test_a_scene_hangs_on_its_seed_alone():
    assert draw_scene(rng(1)) == draw_scene(rng(1)) != draw_scene(rng(2))


def test_items_lie_in_their_box_from_low_to_high_and_apart(scenes):
    for box in (box for scene in scenes for box in scene.boxes):
        assert 1 <= len(box) <= 8
        lows = [item.y + item.side for item in box]
        assert lows == sorted(lows, reverse=True)
        taken = np.zeros((BOX, BOX), int)
        for item in box:
            assert 0 <= item.x <= BOX - item.side and 0 <= item.y <= BOX - item.side
            taken[item.y : item.y + item.side, item.x : item.x + item.side] += 1
        assert taken.max() == 1


def test_towers_stand_and_scattered_things_do_not_pile(scenes):
    assert {scene.towers for scene in scenes} == {True, False}
    for scene in scenes:
        for box in scene.boxes:
            if scene.towers:
                assert [item.y for item in box] == [80, 59, 38, 17][: len(box)]
                assert {item.x for item in box} == {40}
            for item in box:
                gaps = (item.x, BOX - item.x - item.side, item.y, BOX - item.y - item.side)
                assert scene.towers or not any(0 < gap < 3 for gap in gaps)  # no touch is in doubt


@pytest.mark.parametrize(
    ("item", "walls"),
    [
        (Item("circle", "blue", 30, 70, 40), {"right"}),
        (Item("square", "black", 10, 1, 0), {"left", "top"}),
        (Item("square", "black", 10, 50, 90), {"bottom"}),
        (Item("square", "black", 10, 3, 86), set()),
    ],
)
def test_touching(item, walls):
    assert item.touches == walls


def test_every_item_is_painted_where_it_lies(scenes):
    for scene in scenes[:50]:
        strip = paint(scene)
        assert strip.shape == (100, 400, 3) and strip.dtype == np.uint8
        assert (strip[:, BOX:PITCH] == 128).all()
        for at, box in enumerate(scene.boxes):
            canvas = strip[:, at * PITCH : at * PITCH + BOX]
            assert (canvas != GROUND).any(-1).sum() <= sum(item.side**2 for item in box)
            for item in box:
                middle = canvas[item.y + item.side // 2, item.x + item.side // 2]
                assert tuple(middle) == COLOURS[item.colour]
                corner = tuple(canvas[item.y, item.x])
                assert corner == (COLOURS[item.colour] if item.shape == "square" else GROUND)


def test_fold_puts_the_boxes_in_quarters_in_the_order_asked(scenes):
    strip = paint(scenes[0])
    boxes = [strip[:, at * PITCH : at * PITCH + BOX] for at in range(3)]
    square = fold(strip, 200, (2, 0, 1))
    assert (square[:100, :100] == boxes[2]).all() and (square[:100, 100:] == boxes[0]).all()
    assert (square[100:, :100] == boxes[1]).all() and (square[100:, 100:] == GROUND).all()
    assert (fold(strip, 200, mirror=True)[:100, :100] == boxes[0][:, ::-1]).all()
    assert fold(strip, 48).shape == (48, 48, 3)


def test_fold_refuses_another_shape():
    with pytest.raises(DataError, match="NLVR's are"):
        fold(np.zeros((100, 300, 3), np.uint8), 48)


def test_recolouring_a_picture_is_painting_the_recoloured_scene(scenes):
    names = {"yellow": "blue", "black": "yellow", "blue": "black"}
    for scene in scenes[:20]:
        boxes = tuple(tuple(item._replace(colour=names[item.colour]) for item in box) for box in scene.boxes)
        inside = np.arange(400) % PITCH < BOX  # what lies between the boxes is no colour of the scene
        assert (recolour(paint(scene), names)[:, inside] == paint(scene._replace(boxes=boxes))[:, inside]).all()
