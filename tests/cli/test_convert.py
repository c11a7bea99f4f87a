"""`capfilt convert` and `capfilt models`, on small models of our own."""

import dataclasses
import json

import pytest

from capfilt.inputs.tokenizer import TextTokenizer
from capfilt.models.blip import PRESETS, Blip
from capfilt.weights import hub
from capfilt.weights.checkpoint import open_checkpoint
from capfilt.weights.store import save


@pytest.fixture
def model(tmp_path, monkeypatch):
    """A captioner in ./runs/mine."""
    words = TextTokenizer.train(["a red dog on green grass"], 64)
    config = dataclasses.replace(PRESETS["tiny"], roles=("speak",), queue=0).with_words(words)
    save(Blip(config).init_weights(), words, tmp_path / "runs/mine")
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(("layout", "out"), [("huggingface", "there"), ("official", "there/x.pth"), ("capfilt", "a")])
def test_a_model_goes_to_another_layout_and_comes_back(layout, out, model, capfilt):
    code, said, err = capfilt("convert", "runs/mine", out, "--layout", layout, "--px", "48")
    assert (code, err) == (0, "")
    assert said == f"positions resized from 16 to 36 patches\n{out}: caption, {layout} layout, from capfilt\n"
    assert open_checkpoint(out).model.config.vit.px == 48


def test_a_mended_config_is_told_once(model, capfilt):
    capfilt("convert", "runs/mine", "hf", "--layout", "huggingface")
    with open("hf/config.json") as file:
        about = json.load(file)
    del about["capfilt"]
    about["vision_config"]["layer_norm_eps"] = 1e-5
    with open("hf/config.json", "w") as file:
        json.dump(about, file)
    _, said, err = capfilt("convert", "hf", "back")
    assert said.count("1e-06 is used") == 1 and err == ""
    _, said, _ = capfilt("convert", "hf", "back", "--set", "vit.eps=1e-5")
    assert "eps" not in said


def test_what_cannot_be_is_one_line(model, capfilt):
    code, _, err = capfilt("convert", "runs/none", "there")
    assert code == 4 and "runs/none" in err and err.count("\n") == 1
    code, _, err = capfilt("convert", "runs/mine", "there", "--revision", "main")
    assert code == 2 and "only models on the hub have revisions" in err
    code, _, err = capfilt("convert", "runs/mine", "there", "--layout", "onnx")
    assert code == 2 and err.count("\n") == 1


def test_models_lists_the_published_and_the_own(model, capfilt, monkeypatch):
    monkeypatch.setattr(hub, "cached", lambda name: name.endswith("vqa-base"))
    code, said, _ = capfilt("models", "--json")
    rows = {row["name"]: row for row in json.loads(said)}
    assert code == 0 and len(rows) == 27
    assert rows["runs/mine"]["kind"] == "caption" and rows["runs/mine"]["publisher"] == "this machine"
    base = rows["Salesforce/blip-vqa-base"]
    assert base["cached"] and base["abilities"] == ["ask"] and base["licence"] == "BSD-3-Clause"
    assert not rows["Salesforce/blip-itm-base-coco"]["cached"]
    _, said, _ = capfilt("models")
    lines = said.splitlines()
    assert len(lines) == 28 and all(len(line) <= 120 for line in lines)
    assert lines[0].index("kind") == lines[1].index(" caption ") + 1 and "hub, cached" in said


def test_models_without_runs(tmp_path, capfilt, monkeypatch):
    monkeypatch.setattr(hub, "cached", lambda name: False)
    _, said, _ = capfilt("models", "--runs", str(tmp_path / "nothing"))
    assert len(said.splitlines()) == 27
