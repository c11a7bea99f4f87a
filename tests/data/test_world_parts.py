"""The world's parts: geometry, words, noise, paint."""

import random
from itertools import combinations

import numpy as np
import pytest

from capfilt.data.world_draw import mask
from capfilt.data.world_judge import judge
from capfilt.data.world_noise import junk, one_wrong, padded
from capfilt.data.world_scene import BACKGROUNDS, COLOURS, DEMO_SHAPES, DIRECTIONS, SHAPES, draw_lots, holds, relations
from capfilt.data.world_words import Lexicon, articled, plural

LEXICONS = {level: Lexicon(level) for level in ("demo", "full")}


def scenes(level, n):
    rnd = random.Random(3)
    return [draw_lots(level, 48 if level == "demo" else 96, rnd) for _ in range(n)]


def test_demo_scenes_are_unambiguous():
    for scene in scenes("demo", 500):
        found = [r for r in relations(scene, 0, 1) if r in DIRECTIONS]
        assert found == [scene.layout], scene
        opposite = dict(zip(DIRECTIONS, ("right", "left", "below", "above"), strict=True))[found[0]]
        assert holds(opposite, scene, (1, 0)) and not holds(opposite, scene, (0, 1))
        assert not holds(found[0], scene, (0, 0))


def test_full_scenes_stand_as_their_layout_says():
    for scene in scenes("full", 500):
        for link in scene.links if len(scene.things) in (2, 3) else ():
            assert scene.layout in relations(scene, *link), scene
            assert relations(scene, *link[::-1])


def test_demo_shapes_differ_even_when_small():
    masks = {shape: mask(shape, 13) for shape in DEMO_SHAPES}
    for a, b in combinations(DEMO_SHAPES, 2):
        assert np.abs(masks[a] - masks[b]).mean() > 0.1, (a, b)


@pytest.mark.parametrize("shape", SHAPES)
def test_masks_fill_their_square_and_outlines_are_part_of_them(shape):
    whole, border = mask(shape, 24), mask(shape, 24, outlined=True)
    assert whole.shape == (24, 24) and whole.min() >= 0 and whole.max() == 1
    assert max(np.ptp(np.nonzero(whole > 0.3)[0]), np.ptp(np.nonzero(whole > 0.3)[1])) >= 20
    assert (border <= whole).all() and 0.1 < border.sum() / whole.sum() <= 1
    assert ((whole > 0) & (whole < 1)).any() or shape in ("cross", "square", "rectangle")  # antialiased


@pytest.mark.parametrize("level", LEXICONS)
def test_every_wording_reads_back_as_its_fact(level):
    lexicon = LEXICONS[level]
    for kind, table in lexicon.tables.items():
        for value, wordings in table.items():
            for wording in wordings:
                found = [f.word for f in lexicon.find(f"xx {wording} xx") if f.word.kind != "article"]
                read = [("fill" if w.kind == "after" else w.kind, w.value) for w in found]
                assert read == [("fill" if kind == "after" else kind, value)], wording
                if kind == "shape":
                    (many,) = lexicon.find(plural(wording))
                    assert many.word.plural and many.word.value == value


@pytest.mark.parametrize("level", LEXICONS)
def test_padding_and_junk_state_nothing(level):
    rnd = random.Random(0)
    scene = scenes(level, 1)[0]
    texts = [junk(rnd) for _ in range(3000)]
    assert len(set(texts)) > 2000
    for text in [*texts, *(padded("xx", rnd) for _ in range(200))]:
        assert judge(LEXICONS[level], scene, text).stated == 0, text


def test_one_wrong_changes_one_attribute_word():
    rnd = random.Random(1)
    text = "a small red circle left of an orange square on a white background"
    for scene in scenes("demo", 100):
        changed = one_wrong(LEXICONS["demo"], scene, text, rnd)
        assert changed is not None
        before, after = text.replace(" an ", " a ").split(), changed.replace(" an ", " a ").split()
        assert 0 < sum(x != y for x, y in zip(before, after, strict=False)) <= 1 or len(before) != len(after)
        assert judge(LEXICONS["demo"], scene, changed).truth < 1
    assert one_wrong(LEXICONS["demo"], scene, "hello there", rnd) is None


def test_articles_follow_their_word():
    assert articled("a orange ring and an red oval") == "an orange ring and a red oval"


def test_backgrounds_and_colours_are_painted():
    assert len(BACKGROUNDS) >= 10 and len(COLOURS) >= 14 and len(SHAPES) >= 16
