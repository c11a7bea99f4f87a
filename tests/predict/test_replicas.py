"""Two replicas answer as one model does, in order; what goes wrong in one is one error that says where."""

import os
import signal
from functools import partial

import numpy as np
import pytest
import torch

from capfilt.errors import CheckFailed, ConfigError, WeightsError
from capfilt.inputs.tokenizer import TextTokenizer
from capfilt.models.blip import PRESETS, Blip
from capfilt.predict.decode import Decoding
from capfilt.predict.replicas import Replicas, everywhere, predictor
from capfilt.weights import store


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    at = tmp_path_factory.mktemp("model")
    words = TextTokenizer.train(["a red cube beside a blue ball"], 64)
    model, random = Blip(PRESETS["tiny"].with_words(words)), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in model.parameters():
            p.normal_(0.0, 0.3, generator=random)
    store.save(model, words, at)
    return str(at)


@pytest.fixture(scope="module")
def two(folder):
    with Replicas(partial(predictor, folder), ["cpu", "cpu"], chunk=2) as replicas:
        yield replicas


def test_two_answer_as_one(two, folder):
    pixels = np.random.default_rng(0).integers(0, 256, (11, 32, 32, 3), np.uint8)
    texts = [["a red cube"] * (i % 3) for i in range(11)]
    one = predictor(folder, "cpu")
    drawn = Decoding(top_p=0.95, max_length=12)
    wanted = one.caption(pixels, range(11), drawn)
    found = two.call("caption", pixels, range(11), decoding=drawn)
    assert [c.tokens for c in found] == [c.tokens for c in wanted] and len({c.tokens for c in found}) > 5
    for got, want in zip(two.call("match", pixels, texts), one.match(pixels, texts), strict=True):
        assert np.allclose(got, want, atol=1e-5)
    assert np.allclose(two.call("embed_images", pixels), one.embed_images(pixels), atol=1e-5)
    assert two.call("embed_images", pixels[:0]) == []


def test_a_mistake_keeps_its_kind_and_a_bug_its_device(two, folder):
    pixels = np.zeros((5, 32, 32, 3), np.uint8)
    with pytest.raises(ConfigError, match="pixels are uint8"):
        two.call("embed_images", pixels[:, :16])
    with pytest.raises(CheckFailed, match="device cpu: AttributeError"):
        two.call("nothing", pixels)
    with pytest.raises(ConfigError, match="no device"):
        Replicas(partial(predictor, folder), [])


def test_a_replica_that_cannot_begin_or_ends(folder, tmp_path):
    pixels = np.zeros((1, 32, 32, 3), np.uint8)
    with Replicas(partial(predictor, str(tmp_path / "gone")), ["cpu"]) as one:
        with pytest.raises(WeightsError, match="gone"):
            one.call("embed_images", pixels)
        os.kill(next(iter(one.pools[0]._processes)), signal.SIGKILL)
        with pytest.raises(CheckFailed, match="device cpu: its process ended"):
            one.call("embed_images", pixels)


def test_devices_of_this_machine():
    assert everywhere() and all(torch.device(name).type in ("cpu", "cuda") for name in everywhere())
