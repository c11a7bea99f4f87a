"""Verdicts and dialogues: company that may not matter, the swap on demand, what goes when a talk is too long."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from capfilt.blocks.med import SpecialIds
from capfilt.data.annotations import other_sides
from capfilt.errors import ConfigError
from capfilt.inputs.dialogues import dialogue_ids
from capfilt.inputs.tokenizer import TextTokenizer
from capfilt.models import blip_nlvr, blip_visdial
from capfilt.predict import feeding
from capfilt.predict.faithful import Faithful
from capfilt.predict.reasoner import Dialogist, Reasoner

WORDS = ["the left box is red", "two cubes on the right", "a ball", "the right cone is left of the green box here"]


@pytest.fixture(scope="module")
def tokenizer() -> TextTokenizer:
    return TextTokenizer.train([*WORDS, "yes no maybe it is how many"], 90)


def loud(kind: type[nn.Module], config, tokenizer: TextTokenizer) -> nn.Module:
    t = tokenizer
    special = SpecialIds(t.pad_id, t.cls_id, t.sep_id, t.dec_id, t.enc_id)
    model = kind(dataclasses.replace(config, special=special, text=dataclasses.replace(config.text, vocab=len(t))))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            p.normal_(0, 0.25, generator=generator)
    return model.eval()


@pytest.fixture(scope="module")
def nlvr(tokenizer: TextTokenizer) -> blip_nlvr.BlipNlvr:
    return loud(blip_nlvr.BlipNlvr, blip_nlvr.PRESETS["tiny"], tokenizer)


@pytest.fixture(scope="module")
def visdial(tokenizer: TextTokenizer) -> blip_visdial.BlipVisdial:
    return loud(blip_visdial.BlipVisdial, blip_visdial.PRESETS["tiny"], tokenizer)


def pictures(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)


@pytest.mark.parametrize("batch", [1, 3, 64])
def test_company_does_not_matter(nlvr, tokenizer, batch: int):
    first, second = pictures(4), pictures(4, 1)
    together = Reasoner(nlvr, tokenizer, batch).judge(first, second, WORDS)
    alone = [Reasoner(nlvr, tokenizer).judge(first[i : i + 1], second[i : i + 1], WORDS[i : i + 1]) for i in range(4)]
    np.testing.assert_allclose(together, np.concatenate(alone), atol=1e-5)
    assert np.ptp(together) > 1e-3


def test_the_swap_of_the_original_comes_on_demand_and_by_seed(nlvr, tokenizer):
    first, second = pictures(4), pictures(4, 1)
    right = Reasoner(nlvr, tokenizer).judge(first, second, WORDS)
    turned = Reasoner(nlvr, tokenizer).judge(second, first, [other_sides(text) for text in WORDS])
    swapping = Reasoner(nlvr, tokenizer, faithful=Faithful.of("random_swap"))
    drawn = swapping.judge(first, second, WORDS, range(4))
    np.testing.assert_array_equal(drawn, swapping.judge(first, second, WORDS, range(4)))
    kept, changed = np.isclose(drawn, right, atol=1e-5), np.isclose(drawn, turned, atol=1e-5)
    assert (kept | changed).all() and not (kept & changed).all()
    several = np.stack([swapping.judge(first, second, WORDS, range(4 * i, 4 * i + 4)) for i in range(12)])
    share = np.isclose(several, turned, atol=1e-5).mean()
    assert 0.25 < share < 0.75
    once = Reasoner(nlvr, tokenizer).judge(first, first, WORDS)
    np.testing.assert_allclose(swapping.judge(first, first, WORDS, range(4)), once, atol=1e-5)  # one has no other side
    with pytest.raises(ConfigError, match="give seeds"):
        swapping.judge(first, second, WORDS)


def test_each_statement_has_two_images(nlvr, tokenizer):
    with pytest.raises(ConfigError, match="4 first images, 4 second ones, 3 statements"):
        Reasoner(nlvr, tokenizer).judge(pictures(4), pictures(4), WORDS[:3])


@pytest.mark.parametrize("batch", [1, 2, 64])
def test_a_dialogues_score_hangs_on_itself_and_its_image_alone(visdial, tokenizer, batch: int):
    captions = [WORDS[0], WORDS[3], "a ball"]
    talks = [[["how many", "two", "is it red", "yes"], ["how many", "no"]], [], [["is it", "maybe"]]]
    together = Dialogist(visdial, tokenizer, batch).rank(pictures(3), captions, talks)
    assert [len(scores) for scores in together] == [2, 0, 1]
    for picture, caption, mine, scores in zip(pictures(3), captions, talks, together, strict=True):
        for talk, score in zip(mine, scores, strict=True):
            alone = Dialogist(visdial, tokenizer).rank(picture[None], [caption], [[talk]])[0][0]
            assert score == pytest.approx(alone, abs=1e-4)
    other = Dialogist(visdial, tokenizer).rank(pictures(3), ["a ball", *captions[1:]], talks)
    assert abs(other[0][0] - together[0][0]) > 1e-3  # the caption is looked at


def test_little_memory_means_smaller_batches_and_the_same_verdicts(nlvr, visdial, tokenizer, monkeypatch):
    before = Reasoner(nlvr, tokenizer).judge(pictures(4), pictures(4, 1), WORDS)
    monkeypatch.setattr(feeding, "SEEN_MIB", 0)
    np.testing.assert_allclose(Reasoner(nlvr, tokenizer).judge(pictures(4), pictures(4, 1), WORDS), before, atol=1e-5)
    assert Dialogist(visdial, tokenizer).rank(pictures(0), [], []) == []


def test_a_dialogue_keeps_its_end(tokenizer):
    parts = ["how many cubes", "two", "is it red", "yes"]
    whole = dialogue_ids(tokenizer, parts, 64)
    assert whole[0] == tokenizer.cls_id and (whole == tokenizer.sep_id).sum() == 4
    assert tokenizer.decode(whole) == "how many cubes two is it red yes"
    last = len(dialogue_ids(tokenizer, parts[2:], 64))
    assert tokenizer.decode(dialogue_ids(tokenizer, parts, last)) == "is it red yes"
    short = dialogue_ids(tokenizer, ["the left box is red"], 4)
    assert len(short) == 4 and short[-1] == tokenizer.sep_id
