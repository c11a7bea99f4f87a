"""Hand-made verdicts: (stated, true, visible, covered)."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capfilt.data.world import Scene, Thing, World, WorldConfig

DEMO = World(WorldConfig())
FULL = World(WorldConfig(level="full", px=96))


def thing(shape, colour, size, *spots, side=13, fill="solid"):
    return Thing(shape, colour, size, fill, side, spots)


# a small red circle left of a large blue square on a white background
SCENE = Scene(48, (thing("circle", "red", "small", (2, 20)), thing("square", "blue", "large", (24, 16), side=21)),
              "white", ((0, 1),), "left")  # fmt: skip


@pytest.mark.parametrize(
    ("text", "stated", "true", "covered"),
    [
        ("a small red circle left of a large blue square on a white background", 8, 8, 8),
        ("on a white background there is a large blue square right of a small red circle", 8, 8, 8),
        ("a red circle", 2, 2, 2),
        ("a circle and a square", 2, 2, 2),
        ("a green circle left of a blue square", 5, 4, 4),  # wrong colour: the relation still holds
        ("a red circle right of a blue square", 5, 4, 4),  # swapped relation
        ("a red circle above a blue square", 5, 4, 4),
        ("a red star left of a blue square", 5, 3, 3),  # wrong shape takes the relation with it
        ("a red circle left of a green star", 5, 2, 2),  # missing object
        ("a red square", 2, 1, 1),  # either the colour or the shape, never both
        ("a blue circle left of a red square", 5, 3, 3),  # colours exchanged
        ("a red circle on a black background", 3, 2, 2),
        ("on a white background", 1, 1, 1),
        ("red red circle circle", 3, 2, 2),  # the second circle is one too many
        ("a red blue circle", 3, 2, 2),  # two colours, one right
        ("a circle and a circle and a circle", 3, 1, 1),
        ("a white circle", 2, 1, 1),  # a background's colour is no object's
        ("a red", 1, 1, 1),
        ("left of", 1, 0, 0),
        ("a circle left of", 2, 1, 1),
        ("left of a circle left of a square", 4, 3, 3),
        ("a red background", 1, 0, 0),
        ("white background white background", 1, 1, 1),
        ("", 0, 0, 0),
        ("img_2041.jpg - buy now!", 0, 0, 0),
        ("zzz 🙂 ##ed [SEP] of of of", 0, 0, 0),
    ],
)
def test_demo_verdicts(text, stated, true, covered):
    verdict = DEMO.judge(SCENE, text)
    assert (verdict.stated, verdict.true, verdict.visible, verdict.covered) == (stated, true, 8, covered)


def test_shares():
    verdict = DEMO.judge(SCENE, "a green circle left of a blue square")
    assert verdict.truth == 4 / 5 and verdict.coverage == 4 / 8
    assert DEMO.judge(SCENE, "hello").truth == 0.0


def test_phrases_go_to_the_objects_they_fit_best():
    twins = Scene(48, (thing("circle", "red", "small", (2, 20)), thing("circle", "blue", "small", (30, 20))),
                  "black", ((0, 1),), "left")  # fmt: skip
    assert DEMO.judge(twins, "a blue circle right of a circle").truth == 1.0
    assert DEMO.judge(twins, "a blue circle left of a circle").truth == 3 / 4
    assert DEMO.judge(twins, "a circle left of a circle").truth == 1.0


# three small striped red stars above a large green ring, on bricks
STARS = thing("star", "red", "small", (10, 18), (30, 18), (50, 18), side=16, fill="striped")
RING = thing("ring", "green", "large", (20, 45), side=38)
COUNTED = Scene(96, (STARS, RING), "bricks", ((0, 1),), "above")


@pytest.mark.parametrize(
    ("text", "stated", "true", "covered"),
    [
        ("three small striped red stars above a large green ring on a brick wall", 10, 10, 10),
        ("a trio of scarlet pentagrams with stripes over a big emerald hoop, set against brickwork", 9, 9, 9),
        ("two red stars", 3, 2, 2),
        ("some red stars", 3, 3, 2),  # a plural is true of three but does not tell the number
        ("a red star", 2, 2, 2),
        ("green rings", 3, 2, 2),
        ("under three stars is a green donut", 5, 5, 5),
        ("a ring beneath some stars. it is all on bricks", 5, 5, 4),
        ("a red object next to a ring", 3, 3, 3),
        ("stars around a ring", 4, 3, 2),
        ("stars in the top left corner", 3, 2, 1),
        ("a ring in the middle of nowhere", 2, 1, 1),
        ("a dark blue ring", 2, 1, 1),
        ("a dotted ring on graph paper", 3, 1, 1),
    ],
)
def test_full_verdicts(text, stated, true, covered):
    verdict = FULL.judge(COUNTED, text)
    assert (verdict.stated, verdict.true, verdict.visible, verdict.covered) == (stated, true, 10, covered)


def test_between_needs_the_one_in_the_middle():
    row = Scene(
        96,
        tuple(thing(s, "red", "medium", (x, 30), side=26) for s, x in (("star", 2), ("ring", 34), ("heart", 66))),
        "white",
        ((0, 1), (1, 2)),
        "left",
    )
    assert FULL.judge(row, "a ring between a star and a heart").truth == 1.0
    assert FULL.judge(row, "a ring between a heart and a star").coverage == 5 / 12
    assert FULL.judge(row, "between a star and a heart is a ring").truth == 1.0
    assert FULL.judge(row, "a star between a ring and a heart").truth == 3 / 4
    assert FULL.judge(row, "a ring between a star").truth == 2 / 3


def test_inside_and_in_front():
    big = thing("circle", "red", "large", (20, 20), side=38)
    inner = Scene(96, (big, thing("star", "white", "small", (31, 31), side=16)), "black", ((0, 1),), "around")
    assert FULL.judge(inner, "a star inside a circle").truth == 1.0
    assert FULL.judge(inner, "a disc containing a star").truth == 1.0
    assert FULL.judge(inner, "a circle inside a star").truth == 2 / 3
    over = Scene(96, (big, thing("star", "white", "medium", (45, 45), side=26)), "black", ((0, 1),), "behind")
    assert FULL.judge(over, "a star in front of a circle").truth == 1.0
    assert FULL.judge(over, "a circle partly hidden by a star").truth == 1.0
    assert FULL.judge(over, "a circle in front of a star").truth == 2 / 3


@pytest.mark.parametrize("world", [DEMO, FULL], ids=["demo", "full"])
@settings(max_examples=80, deadline=None)
@given(data=st.data(), index=st.integers(0, 1000))
def test_any_stammer_gets_a_sound_verdict(world, data, index):
    tokens = data.draw(st.lists(st.sampled_from([*world.words(), ".", ","]), max_size=30))
    verdict = world.judge(world.scene("test", index), " ".join(tokens))
    assert 0 <= verdict.true <= verdict.stated
    assert 0 <= verdict.covered <= verdict.visible
    assert verdict.covered <= verdict.true * 3  # a "between" covers two links at most


@settings(max_examples=60, deadline=None)
@given(text=st.text(max_size=80))
def test_no_text_breaks_the_judge(text):
    FULL.judge(COUNTED, text)
