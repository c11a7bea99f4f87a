"""Fine-tuning starts: each tensor from where its table says, and nothing else touched."""

import dataclasses

import pytest
import torch

from capfilt.blocks.vit import resize_positions
from capfilt.errors import WeightsError
from capfilt.models.blip import Blip
from capfilt.models.blip_vqa import BlipVqa
from capfilt.weights.start import start_from


@pytest.mark.parametrize(
    ("kind", "places"),
    [
        (
            "vqa",
            {
                "text.layers.1.bidirectional.qkv.weight": "text.layers.1.bidirectional.qkv.weight",
                "text.layers.0.cross.kv.bias": "text.layers.0.cross.kv.bias",
                "answer.layers.1.causal.qkv.weight": "text.layers.1.causal.qkv.weight",
                "answer.layers.1.causal_norm.weight": "text.layers.1.causal_norm.weight",
                "answer.layers.0.cross.kv.weight": "text.layers.0.cross.kv.weight",
                "answer.head.bias": "text.head.bias",
            },
        ),
        (
            "nlvr",
            {
                "text.layers.0.cross0.q.weight": "text.layers.0.cross.q.weight",
                "text.layers.0.cross1.q.weight": "text.layers.0.cross.q.weight",
                "text.layers.1.cross1.kv.bias": "text.layers.1.cross.kv.bias",
                "text.layers.1.cross_norm.bias": "text.layers.1.cross_norm.bias",
                "text.words.weight": "text.words.weight",
            },
        ),
        (
            "visdial",
            {
                "caption.layers.1.bidirectional.out.weight": "text.layers.1.bidirectional.out.weight",
                "dialog.layers.1.cross.out.weight": "text.layers.1.cross.out.weight",
                "dialog.words.weight": "text.words.weight",
                "match_head.bias": "match_head.bias",
            },
        ),
        ("caption", {"text.layers.0.causal.qkv.weight": "text.layers.0.causal.qkv.weight"}),
    ],
)
def test_each_tensor_comes_from_its_place(kind, places, build):
    source, model = build("pretrain"), build(kind)
    with torch.no_grad():
        for x in model.state_dict().values():
            x.fill_(7.0)
    started = start_from(model, source)
    have, given = model.state_dict(), source.state_dict()
    for own, other in {"vit.blocks.1.fc2.weight": "vit.blocks.1.fc2.weight", **places}.items():
        assert torch.equal(have[own], given[other]), own
    fresh = {name for name, x in have.items() if (x == 7.0).all()}
    assert fresh == set(started.fresh)
    assert started.filled == len(have) - len(fresh)
    expected = {"text.layers.1.merge.weight", "text.layers.1.merge.bias"}
    expected |= {f"{layer}.{part}" for layer in ("dense", "verdict") for part in ("weight", "bias")}
    assert fresh == (expected if kind == "nlvr" else set())
    assert started.notes == ()


def test_positions_are_resized_for_another_image_size(build):
    source, model = build("pretrain"), build("vqa", px=48)
    started = start_from(model, source)
    assert torch.equal(model.vit.positions, resize_positions(source.vit.positions, 37))
    assert started.notes == ("positions resized from 16 to 36 patches",)


def test_an_answer_decoder_under_a_wider_tower_keeps_what_cannot_be_taken_over(build):
    source, model = build("pretrain", width=48, heads=4), build("vqa", width=48, heads=4)
    assert isinstance(model, BlipVqa)
    before = model.answer.layers[0].cross.kv.weight.clone()
    started = start_from(model, source)
    assert torch.equal(model.answer.layers[0].cross.kv.weight, before)
    assert started.fresh == tuple(f"answer.layers.{i}.cross.kv.weight" for i in (0, 1))
    assert "keys and values stay random: from width 48 to 32" in started.notes[0]


def test_fresh_twins_start_as_copies(build):
    source, model = build("pretrain"), build("match", queue=8)
    assert isinstance(model, Blip) and model.twins is not None
    queue = model.twins.image_queue.clone()
    started = start_from(model, source)
    assert torch.equal(model.twins.text.words.weight, source.text.words.weight)
    assert torch.equal(model.twins.vit.positions, source.vit.positions)
    assert torch.equal(model.twins.image_queue, queue) and torch.equal(model.temperature, source.temperature)
    assert set(started.fresh) == {f"twins.{name}" for name in ("image_queue", "text_queue", "id_queue", "pointer")}


def test_a_source_without_what_is_needed_fills_nothing(build):
    source, model = build("match"), build("vqa")
    before = {name: x.clone() for name, x in model.state_dict().items()}
    with pytest.raises(WeightsError, match=r"BlipVqa from a Blip that can read, look: answer\.layers\.0\.causal"):
        start_from(model, source)
    assert all(torch.equal(x, before[name]) for name, x in model.state_dict().items())


def test_another_vocabulary_is_named(build):
    source = build("pretrain")
    wider = dataclasses.replace(source.config.text, vocab=90)
    model = BlipVqa(dataclasses.replace(build("vqa").config, text=wider))
    with pytest.raises(WeightsError, match=r"text.words.weight is \(90, 32\), text.words.weight is \("):
        start_from(model, source)
