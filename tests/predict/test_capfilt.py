"""CapFilt as one call gives what its parts give apart, and encodes no image twice."""

import copy
import dataclasses
import math

import pytest
import torch
from torch import nn

from capfilt.blocks.linear import Packed, Packed8
from capfilt.errors import ConfigError
from capfilt.inputs.tokenizer import TextTokenizer
from capfilt.models.blip import Blip
from capfilt.predict import feeding
from capfilt.predict.capfilt import CapFilt, same
from capfilt.predict.decode import BEAM, NUCLEUS, Decoding
from capfilt.predict.predictor import Predictor
from capfilt.predict.ready import ready

from .conftest import a_model, pictures, ragged


def pair(tokenizer: TextTokenizer, shared: bool, batch: int = 256) -> CapFilt:
    captioner, judge = a_model(tokenizer, ("speak",)), a_model(tokenizer, ("read", "look"), seed=1)
    if shared:
        judge.vit.load_state_dict(captioner.vit.state_dict())
    return CapFilt(*(Predictor(model, tokenizer, batch=batch) for model in (captioner, judge)))


@pytest.mark.parametrize("batch", [256, 1])
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize(("decoding", "n"), [(NUCLEUS, 1), (NUCLEUS, 3), (BEAM, 2)], ids=["one", "three", "beams"])
def test_it_gives_what_its_parts_give(
    tokenizer: TextTokenizer, decoding: Decoding, n: int, shared: bool, batch: int, monkeypatch
):
    both = pair(tokenizer, shared, batch)
    assert both.shared == shared
    pixels, web, seeds = pictures(6), ragged((1, 2, 0, 1, 1, 3)), range(6)
    captions = both.captioner.captions(pixels, seeds, decoding, n)
    apart = [both.judge.match(pixels, texts) for texts in (web, [[c.text for c in cs] for cs in captions])]
    encoded: list[int] = []
    monkeypatch.setattr(feeding, "as_tensor", counting(encoded, feeding.as_tensor))
    found = both(pixels, web, seeds, decoding, n)
    assert sum(encoded) == (6 if shared else 12)
    for judged, cs, *pairs in zip(found, captions, *apart, strict=True):
        assert [c.tokens for c in judged.captions] == [c.tokens for c in cs]
        for mine, want in zip((judged.web, judged.synthetic), pairs, strict=True):
            flat = [x for m in mine for x in (m.probability, m.cosine)]
            assert flat == pytest.approx([x for p in want for x in p], abs=1e-5)
    assert both(pixels[:0], [], []) == []


def counting(seen: list[int], work):
    """`work` that notes how many images it is given."""

    def wrapped(pixels, *rest):
        seen.append(len(pixels))
        return work(pixels, *rest)

    return wrapped


def test_both_texts_are_judged_in_one_pass(tokenizer: TextTokenizer):
    both, rows = pair(tokenizer, True), list[int]()
    both.judge.model.match_head.register_forward_hook(lambda _, __, logits: rows.append(len(logits)))
    both(pictures(5), ragged((1,) * 5), range(5))
    assert rows == [10]


def test_a_caption_that_cannot_be_written_is_not_judged(tokenizer: TextTokenizer):
    both = pair(tokenizer, True)
    decoding = dataclasses.replace(BEAM, no_repeat=1, required=("red cube", "red ball"))  # the second red may not come
    (judged,) = both(pictures(1), [["a box"]], [0], decoding)
    assert judged.captions[0].error and judged.synthetic[0].error == judged.captions[0].error
    assert math.isnan(judged.synthetic[0].cosine) and 0 <= judged.web[0].probability <= 1


def test_towers_are_the_same_where_their_numbers_are(tokenizer: TextTokenizer):
    one, other = a_model(tokenizer, ("speak",)), a_model(tokenizer, ("read", "look"))
    other.vit.load_state_dict(one.vit.state_dict())
    assert same(one.vit, one.vit) and same(one.vit, other.vit)
    assert same(ready(one, "bf16").vit, ready(other, "bf16").vit)
    assert not same(ready(one, "bf16").vit, one.vit) and not same(ready(one, "bf16").vit, ready(one, "fp32").vit)
    last = list(other.vit.parameters())[-1]
    with torch.no_grad():
        last[-1] += 1e-3
    assert not same(one.vit, other.vit)


@pytest.mark.parametrize("kind", [Packed, Packed8])
def test_packed_matrices_are_compared_by_what_they_hold(kind: type):
    weight, bias = torch.randn(16, 16), torch.randn(16)
    more = weight.clone()
    more[3, 5] *= -1
    assert same(kind(weight, bias, torch.float32), kind(weight.clone(), bias.clone(), torch.float32))
    assert not same(kind(weight, bias, torch.float32), kind(more, bias, torch.float32))
    assert not same(nn.Linear(16, 16), kind(weight, bias, torch.float32))


def test_what_does_not_fit_is_refused(tokenizer: TextTokenizer):
    both = pair(tokenizer, True)
    with pytest.raises(ConfigError, match="read and look"):
        CapFilt(both.captioner, both.captioner)
    with pytest.raises(ConfigError, match="can speak"):
        CapFilt(both.judge, both.judge)
    with pytest.raises(ConfigError, match="2 images but 1 seeds"):
        both(pictures(2), [["a"], ["b"]], [0])
    with pytest.raises(ConfigError, match="got 1"):
        both(pictures(2), [["a"]], [0, 1])
    wide = copy.deepcopy(both.judge)
    config = wide.model.config
    wide.model = Blip(dataclasses.replace(config, vit=dataclasses.replace(config.vit, px=64)))
    with pytest.raises(ConfigError, match="32 px and the filter of 64"):
        CapFilt(both.captioner, wide)
