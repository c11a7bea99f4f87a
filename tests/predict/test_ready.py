"""A model made ready for use says what the model says, as exactly as its precision allows, and leaves it alone."""

import dataclasses
import gc
import os
import signal

import numpy as np
import pytest
import torch

from capfilt.blocks.linear import Linear, Packed, Packed8, Ready
from capfilt.errors import ConfigError
from capfilt.models.blip import PRESETS, Blip
from capfilt.models.blip_nlvr import PRESETS as NLVR
from capfilt.models.blip_nlvr import BlipNlvr
from capfilt.models.blip_vqa import PRESETS as VQA
from capfilt.models.blip_vqa import BlipVqa
from capfilt.predict import ready as module
from capfilt.predict.ready import choose, engine_of, ready

TINY = dataclasses.replace(PRESETS["tiny"], queue=0)


def loud(model):
    torch.manual_seed(0)
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.2)
    return model.requires_grad_(False).eval()


@pytest.fixture(scope="module")
def model():
    return loud(Blip(TINY))


def answers(model, pixels, ids):
    with torch.inference_mode():
        image = model.vit(pixels)
        seen = model.text.project(image)
        states = model.text.speak(ids, torch.ones_like(ids), seen)
        return {
            "image": image,
            "match": model.match_logits(ids, torch.ones_like(ids), seen),
            "words": model.text.word_logits(states),
            "text": model.text_vec(ids, torch.ones_like(ids)),
        }


@pytest.mark.parametrize(("precision", "off"), [("fp32", 1e-5), ("bf16", 0.03), ("int8", 0.08)])
def test_answers_stay(model, precision, off):
    pixels, ids = torch.randn(2, 3, 32, 32), torch.randint(7, 60, (2, 6))
    before = {name: p.clone() for name, p in model.state_dict().items()}
    wanted, got = answers(model, pixels, ids), answers(ready(model, precision), pixels, ids)
    for name, value in wanted.items():
        assert got[name].shape == value.shape
        assert (got[name].float() - value).norm() < off * value.norm(), name
    assert all(torch.equal(p, before[name]) for name, p in model.state_dict().items())


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
def test_no_matrix_is_left_behind(model, precision):
    at_work = ready(model, precision)
    for tower, kind in ((at_work.vit, Packed8 if precision == "int8" else Packed), (at_work.text, Packed)):
        assert not [m for m in tower.modules() if isinstance(m, Linear)]
        assert any(isinstance(m, kind) for m in tower.modules())
    assert at_work.text.head.ready is not None and at_work.vit.stem.ready is not None


@pytest.mark.parametrize("build", [lambda: BlipVqa(VQA["tiny"]), lambda: BlipNlvr(NLVR["tiny"])])
def test_every_model_can_be_made_ready(build):
    model = loud(build())
    at_work = ready(model, "fp32")
    pixels = torch.randn(2, 3, 32, 32)
    assert torch.allclose(at_work.vit(pixels), model.vit(pixels), atol=1e-5)
    assert not [m for m in at_work.modules() if isinstance(m, Linear)]


def test_without_onednn_plain_matrices_do(model, monkeypatch):
    monkeypatch.setattr(module, "_packs", lambda: False)
    pixels, ids = torch.randn(1, 3, 32, 32), torch.randint(7, 60, (1, 6))
    at_work = ready(model, "bf16")
    assert any(type(m) is Ready for m in at_work.modules())
    assert torch.allclose(answers(at_work, pixels, ids)["match"], answers(model, pixels, ids)["match"], atol=0.1)
    with pytest.raises(ConfigError, match="oneDNN"):
        ready(model, "int8")


def test_auto_goes_by_width_and_by_what_is_faster_here(model, monkeypatch):
    assert choose(model).precision == "fp32" and "narrow" in choose(model).why
    assert ready(model) is model
    wide = Blip.__new__(Blip)
    torch.nn.Module.__init__(wide)
    wide.config, wide.one = PRESETS["base"], torch.nn.Parameter(torch.zeros(1))
    for gain, precision in ((1.9, "bf16"), (1.0, "fp32")):
        monkeypatch.setattr(module, "matmul_gain", lambda *_, gain=gain: gain)
        assert choose(wide).precision == precision
    assert choose(wide, "fp32").why == "asked for"
    with pytest.raises(ConfigError, match="choose from"):
        choose(wide, "fp16")


def test_bytes_of_an_image_do_not_hang_on_its_company(model, monkeypatch):
    """Each image has its own levels, even where it stands beside one ten times as loud."""
    from capfilt.predict import feeding

    monkeypatch.setattr(feeding, "ALONE", 1)
    at_work, image = ready(model, "int8"), torch.randn(1, 3, 32, 32)
    with torch.inference_mode():
        alone = feeding.see(at_work.vit, image)
        beside = feeding.see(at_work.vit, torch.cat((10 * image.flip(0), image)))[1:]
    assert np.array_equal(alone.numpy(), beside.numpy())


def test_openvino_gives_the_same_tokens(model):
    pytest.importorskip("openvino")
    pixels = torch.randn(2, 3, 32, 32)
    at_work = ready(model, "fp32", "openvino")
    assert engine_of(at_work) == "openvino" and engine_of(ready(model, "fp32")) == "torch"
    with torch.inference_mode():
        assert torch.allclose(at_work.vit(pixels), model.vit(pixels), atol=1e-4)
        assert torch.allclose(at_work.vit(pixels, cls_only=True), model.vit(pixels)[:, :1], atol=1e-4)
    with pytest.raises(ConfigError, match="not in int8"):
        ready(model, "int8", "openvino")
    with pytest.raises(ConfigError, match="choose from"):
        ready(model, "fp32", "onnx")


@pytest.mark.parametrize(("sooner", "engine"), [(1.2, "openvino"), (0.9, "torch")])
def test_auto_takes_openvino_where_it_is_faster(model, monkeypatch, sooner, engine):
    pytest.importorskip("openvino")
    monkeypatch.setattr(module, "gain", lambda other, own: sooner)
    assert engine_of(ready(model, "fp32", "auto")) == engine
    monkeypatch.setattr(module, "available", lambda: False)
    assert engine_of(ready(model, "fp32", "auto")) == "torch"


def test_signals_outlive_openvino(model):
    """Two towers, gone in the order they came, and then a signal, which must reach Python."""
    pytest.importorskip("openvino")
    got, before = [], signal.signal(signal.SIGTERM, lambda *_: got.append(1))
    try:
        towers = [ready(model, "fp32", "openvino") for _ in range(2)]
        while towers:
            del towers[0]
            gc.collect()
        os.kill(os.getpid(), signal.SIGTERM)
        assert got == [1]
    finally:
        signal.signal(signal.SIGTERM, before)
