"""What a precision changes is counted: nothing of what is equal, all of what is not, flips at the run's own bar."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from capfilt.clean.decide import Rule
from capfilt.config import to_dict
from capfilt.errors import ConfigError, DataError
from capfilt.files import read_json, write_json
from capfilt.inputs.tokenizer import TextTokenizer
from capfilt.models.blip import Blip
from capfilt.predict.ready import ready
from capfilt.recipes import deviation as recipe
from capfilt.recipes import smoke
from capfilt.weights import store

NAMES = {"greedy", "beam3", "itm_max", "itm_mean", "cosine_max", "cosine_mean", "flipped", "truth"}


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """What a run leaves behind, its models with large random weights."""
    out, config = tmp_path_factory.mktemp("run"), smoke()
    words = TextTokenizer.train(["a red ring above a small blue heart on grey"] * 3, 64)
    for name, roles in (("models/bootstrapped", ("read", "look", "speak")), ("cleaners/filter", ("read", "look"))):
        model = Blip(dataclasses.replace(config.model, roles=roles, queue=0).with_words(words))
        random = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for p in model.parameters():
                p.normal_(0.0, 0.3, generator=random)
        store.save(model, words, out / name)
    write_json(out / "config.json", to_dict(config))
    write_json(out / "stages.json", {"models/bootstrapped": {}, "ledger": {"threshold": 0.5}})
    return out


def test_a_row_a_precision(run, capsys):
    found = recipe.deviation(run, ("bf16",), pictures=4)
    assert list(found) == ["fp32", "bf16"] and all(set(row) == NAMES for row in found.values())
    floor, bf16 = found["fp32"], found["bf16"]
    assert floor["greedy"] == floor["beam3"] == 1 and floor["flipped"] == 0 and floor["itm_max"] < 1e-4
    assert 1e-5 < bf16["cosine_mean"] <= bf16["cosine_max"] < 0.1 and bf16["itm_max"] > floor["itm_max"]
    told = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in told] == ["fp32", "bf16"]
    assert "(goal 0.99)" in told[1] and "goal" not in told[0]


def test_another_model_gives_other_answers(run, monkeypatch):
    def other(model, precision):
        changed = ready(model, "fp32")
        for module in changed.modules():
            if isinstance(module, torch.nn.LayerNorm):
                module.bias = torch.nn.Parameter(-module.bias, requires_grad=False)
        return changed

    monkeypatch.setattr(recipe, "ready", other)
    row = recipe.deviation(run, (), pictures=4)["fp32"]
    assert row["greedy"] < 1 and row["beam3"] < 1 and row["itm_max"] > 0.1


def test_what_flips_hangs_on_the_bar(run):
    opened = recipe._opened(run)
    opened = dataclasses.replace(opened, bar=0.5, config=dataclasses.replace(opened.config, rule=Rule(itc=0)))
    before = recipe.Answers({"greedy": ["a"], "beam3": ["a"]}, np.array([[[0.4, 0.1], [0.6, 0.1]]]))
    for change, flipped in ((0.05, 0), (0.15, 0.5), (-0.15, 0.5), (0.3, 0.5)):
        after = dataclasses.replace(before, matched=before.matched + np.array([change, 0]))
        row = recipe._compared(before, after, opened)
        assert row["flipped"] == flipped and row["itm_max"] == pytest.approx(abs(change)) and row["cosine_max"] == 0


def test_runs_that_cannot_be_measured(run, tmp_path):
    with pytest.raises(DataError, match="no run that is over"):
        recipe.deviation(tmp_path)
    with pytest.raises(ConfigError, match="fp7"):
        recipe.deviation(run, ("fp7",), pictures=2)
    write_json(tmp_path / "config.json", {**read_json(run / "config.json"), "world": None})
    write_json(tmp_path / "stages.json", read_json(run / "stages.json"))
    with pytest.raises(DataError, match="not a run of the drawn world"):
        recipe.deviation(tmp_path)
