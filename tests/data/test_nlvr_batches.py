"""Batches of statements: a function of the step, balanced, and people's rows shown anew without a change of truth."""

import numpy as np
import pytest
import torch

from capfilt.data.nlvr.batches import DrawnStatements, StripStatements, draw_told, seen_anew
from capfilt.data.nlvr.world import COLOURS, draw_scene, fold, paint, recolour
from capfilt.errors import ConfigError
from capfilt.inputs.tokenizer import TextTokenizer
from capfilt.runtime import rng


@pytest.fixture(scope="module")
def tokenizer() -> TextTokenizer:
    _, told = draw_told(rng("words"), 20, 8)
    return TextTokenizer.train([text for rows in told for text, _ in rows], 400)


def same(a, b) -> bool:
    return all(torch.equal(x, y) for x, y in zip(vars(a).values(), vars(b).values(), strict=True))


def test_a_batch_is_a_function_of_its_step(tokenizer):
    batches = DrawnStatements(tokenizer, 32, 4, 0, 24)
    assert same(batches[3], DrawnStatements(tokenizer, 32, 4, 0, 24)[3])
    assert not torch.equal(batches[3].pixels, batches[4].pixels)
    batch = batches[3]
    assert batch.pixels.shape == (2, 8, 3, 24, 24) and batch.ids.shape[0] == batch.label.shape[0] == 32
    assert not torch.equal(batch.pixels[0], batch.pixels[1])


def test_ranks_share_a_batch(tokenizer):
    whole = DrawnStatements(tokenizer, 32, 4, 0, 24)[5]
    half = DrawnStatements(tokenizer, 32, 4, 0, 24)
    half.rank, half.world = 1, 2
    part = half[5]
    assert torch.equal(part.pixels, whole.pixels[:, 4:])
    assert torch.equal(part.label.view(4, 4), whole.label.view(4, 8)[:, 4:])


def test_words_alone_tell_nothing():
    counts: dict[str, list[bool]] = {}
    for step in range(6):
        for rows in draw_told(rng("balance", step), 32, 8)[1]:
            assert len(rows) == 8
            for text, truth in rows:
                counts.setdefault(text, []).append(truth)
    truths = [truth for rows in counts.values() for truth in rows]
    assert 0.48 < np.mean(truths) < 0.52
    even = sum(len(rows) for rows in counts.values() if np.mean(rows) == 0.5)
    assert even > 0.85 * len(truths)


def test_a_row_shown_anew_keeps_its_truth():
    strip = paint(next(s for s in (draw_scene(rng("row", i)) for i in range(9)) if not s.towers))
    draw, colours, mirrors = rng("anew"), set(), set()
    for _ in range(30):
        pair, (text, truth) = seen_anew(draw, strip, ("A blue item is left of YELLOW ones.", True), 30)
        words = text.split()
        assert truth is True and words[0] == "a"
        names = {"blue": words[1], "yellow": words[6]}
        names["black"] = next(iter(set(COLOURS) - set(names.values())))
        told = [fold(recolour(strip, names), 30, (a, b, 3 - a - b), words[4] == "right") for a, b in ORDERED]
        assert all(any((shown == possible).all() for possible in told) for shown in pair)
        assert not (pair[0] == pair[1]).all()
        colours.add((words[1], words[6]))
        mirrors.add(words[4])
    assert len(colours) == 6 and mirrors == {"left", "right"}


ORDERED = [(a, b) for a in range(3) for b in range(3) if a != b]


def test_peoples_rows_and_drawn_ones_take_turns(tokenizer):
    strips = np.stack([paint(draw_scene(rng("strip", i))) for i in range(6)])
    told = [(f"there is a blue block number {i}", i % 2 == 0) for i in range(6)]
    drawn = DrawnStatements(tokenizer, 16, 4, 0, 24)
    batches = StripStatements(strips, told, drawn, 0.5)
    assert same(batches[7], StripStatements(strips, told, drawn, 0.5)[7])
    people = [len(batches[step]) == 4 for step in range(40)]
    assert 8 < sum(people) < 32
    with pytest.raises(ConfigError, match="one strip a statement"):
        StripStatements(strips[:5], told, drawn)
    with pytest.raises(ConfigError, match="not a multiple"):
        DrawnStatements(tokenizer, 30, 4, 0, 24)
