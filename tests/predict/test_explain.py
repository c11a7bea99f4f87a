"""Heat against what moving the model's own inputs does; words, layers and texts that cannot be."""

import dataclasses

import numpy as np
import pytest
import torch

from capfilt.blocks.med import with_first
from capfilt.errors import ConfigError, DataError
from capfilt.inputs.images import normalize
from capfilt.inputs.tokenizer import TextTokenizer
from capfilt.models.blip import PRESETS, Blip
from capfilt.predict.explain import _heat, explain, laid_open
from capfilt.predict.faithful import Faithful
from capfilt.predict.predictor import Predictor

TEXTS = ["a red cube", "a small blue ball on a green box", "two cones beside a cube", "the ball behind a cone"]
LONG = "a red redden cube beside a greenish ball"


def a_predictor(roles=("read", "look", "speak"), depth: int = 3, **options) -> Predictor:
    tokenizer = TextTokenizer.train(TEXTS, 64)
    config = PRESETS["tiny"].with_words(tokenizer)
    text = dataclasses.replace(config.text, depth=depth)
    model = Blip(dataclasses.replace(config, text=text, roles=tuple(roles), queue=0))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim:
                p.normal_(0, 0.25, generator=generator)
    return Predictor(model.eval(), tokenizer, **options)


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return a_predictor()


def picture(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8)


@torch.inference_mode()
def likelihood(predictor: Predictor, text: str) -> float:
    """Mean log-probability of a text's ids about the picture, its end included, in one pass."""
    model, given = predictor.model.eval(), len(predictor.start)
    row = torch.tensor([[*predictor.start, *predictor.tokenizer.encode([text])[0][1:]]])
    seen = model.text.project(model.vit(normalize(picture()[None])))
    logits = model.text.word_logits(model.text.speak(row, torch.ones_like(row), seen))[0, given - 1 : -1]
    return logits.log_softmax(-1).gather(1, row[0, given:, None]).mean().item()


@pytest.mark.parametrize("layer", [0, 1, 2])
@pytest.mark.parametrize("causal", [False, True])
def test_the_states_are_the_models_own(predictor: Predictor, layer: int, causal: bool):
    model = predictor.model
    seen = model.text.project(torch.randn(2, 17, 32))
    ids = torch.randint(8, 60, (2, 6))
    mask = torch.tensor([[1] * 6, [1] * 4 + [0] * 2])
    states, probabilities = laid_open(model.text, ids, mask, seen, layer, causal)
    want = model.text.speak(ids, mask, seen) if causal else model.text.look(ids, mask, seen)
    torch.testing.assert_close(states, want, atol=1e-4, rtol=0)
    torch.testing.assert_close(probabilities.sum(-1), torch.ones(2, 2, 6))


@pytest.mark.parametrize("causal", [False, True])
def test_heat_is_what_a_patch_adds(causal: bool):
    """Attention times gradient, summed over words, is how the answer moves when a patch speaks a little louder."""
    model, layer = a_predictor().model.double(), 1
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(1, 17, 32, generator=generator, dtype=torch.float64)
    ids = torch.randint(8, 60, (1, 6), generator=generator)
    ids, mask = with_first(ids, model.config.special.enc), torch.ones_like(ids)

    def answer(states: torch.Tensor) -> torch.Tensor:
        return model.text.word_logits(states)[0, -1, 9] if causal else model.match_head(states[:, 0])[0, 1]

    with torch.no_grad():
        seen = model.text.project(image)
    states, probabilities = laid_open(model.text, ids, mask, seen, layer, causal)
    (gradient,) = torch.autograd.grad(answer(states), probabilities)
    added = (probabilities * gradient).sum(dim=2)[0]
    assert added.abs().max() > 1e-3
    speak = model.text.speak if causal else model.text.look
    for head, patch in ((0, 0), (1, 5), (0, 16)):
        moved = []
        for step in (1e-5, -1e-5):
            k, v = seen[layer]
            louder = v.clone()
            louder[:, head, patch] *= 1 + step
            with torch.no_grad():
                moved.append(answer(speak(ids, mask, [*seen[:layer], (k, louder), *seen[layer + 1 :]])))
        assert added[head, patch].item() == pytest.approx(float(moved[0] - moved[1]) / 2e-5, abs=1e-6)


def test_rows_from_the_top_and_cls_left_out():
    probabilities, gradient = torch.ones(1, 2, 1, 10), torch.zeros(1, 2, 1, 10)
    gradient[0, 0, 0, 1 + 3 * 1 + 2] = 4.0
    gradient[0, 1, 0, 1] = -8.0
    gradient[0, :, 0, 0] = 100.0
    heat = _heat(probabilities, gradient)[0, 0]
    assert heat[1, 2] == 2 and heat.sum() == 2


@pytest.mark.parametrize("asked", ["look", "speak"])
def test_one_map_a_word(predictor: Predictor, asked):
    pieces = predictor.tokenizer.encode([LONG], 40)[0]
    found = explain(predictor, picture(), LONG.upper() + "!", asked)
    assert found.words == tuple(LONG.split()) and len(pieces) - 2 > len(found.words) and found.cut == 0
    assert found.maps.shape == (8, 4, 4) and found.maps.dtype == np.float32
    assert (found.maps >= 0).all() and (found.maps.sum((1, 2)) > 0).all()
    if asked == "look":
        assert found.score == pytest.approx(predictor.match(picture()[None], [[LONG]])[0][0][0], abs=1e-5)
    else:
        assert found.score == pytest.approx(likelihood(predictor, LONG), abs=1e-5)


def test_a_faithful_matcher_is_explained_as_it_matches():
    mended, original = a_predictor(), a_predictor(faithful=Faithful(match_cls=True))
    want = original.match(picture()[None], [["a red cube"]])[0][0][0]
    assert explain(original, picture(), "a red cube").score == pytest.approx(want, abs=2e-6)
    assert abs(explain(mended, picture(), "a red cube").score - want) > 1e-5


def test_speaking_a_word_hangs_on_no_later_word(predictor: Predictor):
    one = explain(predictor, picture(), "a red cube beside", "speak")
    other = explain(predictor, picture(), "a red cube two ball", "speak")
    np.testing.assert_allclose(one.maps[:3], other.maps[:3], atol=1e-6)
    assert np.abs(one.maps[3] - other.maps[3]).max() > 1e-6


def test_a_prompt_is_given_and_not_explained():
    plain, prompted = a_predictor(), a_predictor(prompt="two cones ")
    one, other = (explain(p, picture(), "a red cube", "speak") for p in (plain, prompted))
    assert one.words == other.words == ("a", "red", "cube")
    assert np.abs(one.maps - other.maps).max() > 1e-6
    assert other.score == pytest.approx(likelihood(prompted, "a red cube"), abs=1e-5)


def test_the_default_layer_is_the_middle():
    for depth, asked, layer in ((12, "look", 6), (3, "look", 1), (2, "look", 0), (2, "speak", 1), (1, "speak", 0)):
        p = a_predictor(depth=depth)
        found, want = explain(p, picture(), "a red cube", asked), explain(p, picture(), "a red cube", asked, layer)
        np.testing.assert_array_equal(found.maps, want.maps)


def test_what_did_not_fit_is_counted():
    found = explain(a_predictor(max_length=6), picture(), "a a a a a a a", "look")
    assert found.words == ("a",) * 4 and found.cut == 3
    assert explain(a_predictor(), picture(), "a " * 33, "look").cut == 3  # captions end after 30 words


def test_the_model_is_left_as_it_was(predictor: Predictor):
    model = predictor.model.train()
    explain(predictor, picture(), "a red cube")
    assert model.training and all(p.grad is None for p in model.parameters())
    model.eval()


def test_what_cannot_be_asked(predictor: Predictor):
    for layer in (-1, 2, 12):
        with pytest.raises(ConfigError, match=f"layer={layer}, but this model can be asked at 0 to 1"):
            explain(predictor, picture(), "a red cube", "look", layer)
    with pytest.raises(ConfigError, match="one layer"):
        explain(a_predictor(depth=1), picture(), "a red cube", "look")
    with pytest.raises(ConfigError, match="look is none of"):
        explain(a_predictor(("speak",)), picture(), "a red cube", "look")
    with pytest.raises(ConfigError, match="pixels are"):
        explain(predictor, picture()[:30], "a red cube")
    with pytest.raises(DataError, match="no word"):
        explain(predictor, picture(), " ... ")
    assert explain(a_predictor(("speak",)), picture(), "a red cube").score < 0
