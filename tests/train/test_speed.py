"""What a step costs is counted as torch counts it, and a reading covers what came since the one before."""

import dataclasses
import time

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from capfilt.blocks import attention
from capfilt.models.blip import CAPTIONING, PRESETS, RETRIEVAL, Blip, Objective
from capfilt.pair import Batch
from capfilt.train import speed
from capfilt.train.speed import Speedometer, step_flops

TINY = PRESETS["tiny"]
LARGER_VOCABULARY = dataclasses.replace(TINY, text=dataclasses.replace(TINY.text, vocab=500))


@pytest.mark.parametrize("stem", ["linear", "conv", "histogram"])
@pytest.mark.parametrize("objective", [Objective(), RETRIEVAL, CAPTIONING], ids=["pretrain", "retrieval", "caption"])
@pytest.mark.parametrize("queue", [0, 32])
def test_flops_are_those_that_torch_counts(monkeypatch, objective, stem, queue):
    monkeypatch.setattr(attention, "plain", lambda q: True)  # torch does not count its own fused kernel on a CPU
    vit = dataclasses.replace(TINY.vit, stem=stem)
    config = dataclasses.replace(LARGER_VOCABULARY, vit=vit, queue=queue)
    model = Blip(config).init_weights().train()
    ids = torch.randint(7, 60, (6, 11))
    batch = Batch(torch.randn(6, 3, 32, 32), ids, torch.ones_like(ids), torch.arange(6), torch.arange(6))
    with FlopCounterMode(display=False) as counted:
        found = model.losses(batch, objective, 0.4, torch.rand(2, 6))
        torch.stack(list(found.values())).sum().backward()
    assert step_flops(config, objective, 6, 11) == pytest.approx(counted.get_total_flops(), rel=0.03)


def test_a_step_of_base_costs_what_arithmetic_says():
    """105 to 115 thousand million multiply-adds a pair at 224 px, texts of 30 tokens at most."""
    macs = step_flops(PRESETS["base"], Objective(), 1, 20) / 2e9
    assert 95 < macs < 115


def test_a_reading_covers_what_came_since_the_last(monkeypatch):
    now = iter((0.0, 2.0, 2.0, 10.0, 10.0))
    monkeypatch.setattr(time, "monotonic", lambda: next(now))
    monkeypatch.setattr(speed, "matmul_speed", lambda *_: 1e9)
    meter = Speedometer(Blip(TINY), Objective(), torch.device("cpu"), torch.float32)
    meter.saw(8, 7)
    meter.saw(8, 7)
    flops = step_flops(TINY, Objective(), 16, 7)
    assert meter.read(world=2) == {"pairs_per_s": 16.0, "mfu": round(flops / 2e9, 4)}
    meter.saw(8, 7)
    assert meter.read(world=1) == {"pairs_per_s": 1.0, "mfu": round(flops / 2 / 8e9, 4)}


def test_of_other_models_only_the_pairs_are_told():
    meter = Speedometer(torch.nn.Linear(2, 2), object(), torch.device("cpu"), torch.float32)
    meter.saw(4, 9)
    assert meter.read(world=1).keys() == {"pairs_per_s"}


@pytest.mark.parametrize(("px", "gmac"), [(384, 55.5), (224, 17.6)])
def test_an_image_through_the_tower_of_base(px, gmac):
    assert speed.vit_macs(dataclasses.replace(PRESETS["base"].vit, px=px), False) / 1e9 == pytest.approx(gmac, rel=0.01)
