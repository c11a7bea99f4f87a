"""What is looked at is told with its state, and a model is timed as it works: rates, limits and shares that agree."""

import dataclasses
import importlib.util
import tomllib
from pathlib import Path

import pytest
import torch

from capfilt import runtime
from capfilt.blocks.med import SpecialIds
from capfilt.errors import ConfigError
from capfilt.inputs.tokenizer import TextTokenizer
from capfilt.models.blip import PRESETS, Blip
from capfilt.models.blip_vqa import PRESETS as VQA
from capfilt.models.blip_vqa import BlipVqa
from capfilt.recipes import doctor as recipe
from capfilt.train.speed import vit_macs
from capfilt.weights import store

EVERYTHING = {"encode, 1 image", "encode, 8 images", "caption, greedy", "caption, beam 3", "match, 4 texts an image"}


@pytest.fixture
def small_limit(monkeypatch):
    monkeypatch.setattr(runtime, "CPU_SIDE", 64)
    runtime.matmul_speed.cache_clear()
    yield
    runtime.matmul_speed.cache_clear()


def test_extras_are_those_of_the_package():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for name, (packages, _) in recipe.EXTRAS.items():
        assert set(packages) <= set(project["optional-dependencies"][name])


def test_everything_is_looked_at(monkeypatch):
    found = {finding.name: finding for finding in recipe.findings()}
    assert {"capfilt", "device", "memory", "cores", "instructions", "allocator", "cache", *recipe.EXTRAS} == set(found)
    assert {"ok", "missing", "note"} >= {finding.state for finding in found.values()}
    assert all(finding.told and "\n" not in finding.told for finding in found.values())
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    lacking = recipe._extra("openvino", *recipe.EXTRAS["openvino"])
    assert lacking.state == "missing" and "pip install 'capfilt[openvino]'" in lacking.told


def test_more_threads_than_cores_are_worth_a_note(monkeypatch):
    monkeypatch.setattr(recipe, "usable_cores", lambda: 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    cores = next(finding for finding in recipe.findings() if finding.name == "cores")
    assert cores.state == "note" and "4 threads on 1 usable cores" in cores.told and "OMP_NUM_THREADS" in cores.told


def test_a_model_of_random_weights_is_timed(small_limit):
    found = recipe.speed(size="tiny")
    assert set(found["images_per_s"]) == EVERYTHING and all(rate > 0 for rate in found["images_per_s"].values())
    assert (found["px"], found["precision"], found["engine"]) == (32, "fp32", "torch") and "narrow" in found["why"]
    flop = 2 * vit_macs(PRESETS["tiny"].vit, False)
    for name, share in found["share_of_limit"].items():
        wanted = found["images_per_s"][name] * flop / found["limit_gflops"]["fp32"] / 1e9
        assert share == pytest.approx(wanted, rel=0.1, abs=6e-4)
    assert len(found["share_of_limit"]) == 2


def test_a_checkpoint_is_timed_as_far_as_it_goes(small_limit, tmp_path):
    words = TextTokenizer.train(["a red cube beside a blue ball"], 64)
    store.save(Blip(dataclasses.replace(PRESETS["tiny"], roles=("speak",), queue=0).with_words(words)), words, tmp_path)
    found = recipe.speed(str(tmp_path), px=16)
    assert found["px"] == 16 and not any("match" in name for name in found["images_per_s"])


def test_what_cannot_be_timed(tmp_path):
    with pytest.raises(ConfigError, match="size 'huge' is not one of tiny"):
        recipe.speed(size="huge")
    words = TextTokenizer.train(["a red cube beside a blue ball"], 64)
    sizes = dataclasses.replace(VQA["tiny"].text, vocab=len(words))
    store.save(
        BlipVqa(dataclasses.replace(VQA["tiny"], special=SpecialIds(**words.marks), text=sizes)), words, tmp_path
    )
    with pytest.raises(ConfigError, match="a model of one task"):
        recipe.speed(str(tmp_path))
