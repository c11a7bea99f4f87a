"""Each task's recipe, from annotation files to its metric: it learns a handful of rows, resumes, and has the paper's
settings."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from capfilt.errors import ConfigError, DataError, WeightsError
from capfilt.files import read_json
from capfilt.inputs.tokenizer import TextTokenizer
from capfilt.models.blip import PRESETS, Blip
from capfilt.models.blip_nlvr import BlipNlvrConfig
from capfilt.models.blip_vqa import BlipVqaConfig
from capfilt.recipes import TASKS, tasks
from capfilt.recipes.tasks import TaskSources, configured, tune
from capfilt.runtime import Terminated
from capfilt.train import loop
from capfilt.weights import store

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 220), "white": (240, 240, 240)}
NAMES = tuple(COLOURS)
LEARN = ("augmentation=null", "train.batch=8", "train.schedule.warmup=5", "train.schedule.rate=2e-3")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Pictures of one colour, and annotations of them for every task."""
    at = tmp_path_factory.mktemp("annotated")
    for name, colour in COLOURS.items():
        for k in range(2):
            shade = np.clip(np.array(colour) + 15 * k, 0, 255).astype(np.uint8)
            Image.fromarray(np.broadcast_to(shade, (32, 32, 3))).save(at / f"{name}{k}.png")
    files = [f"{name}{k}.png" for name in NAMES for k in range(2)]
    texts = [f"all of it is {name}" for name in NAMES for _ in range(2)]
    pairs = [{"image": f, "caption": [t], "image_id": i} for i, (f, t) in enumerate(zip(files, texts, strict=True))]
    asked = [{"image": f, "question": "what colour is it?", "answer": f[:-5]} for f in files]
    stated = [
        {"images": [a, b], "sentence": "both are the same", "label": a[:-5] == b[:-5]}
        for a in files[:4]
        for b in files[:4]
    ]
    turns = [{"question": 0, "answer": i // 2, "answer_options": [0, 1, 2, 3], "gt_index": i // 2} for i in range(8)]
    dialogs = [{"image_id": i, "caption": "a picture", "dialog": [turn]} for i, turn in enumerate(turns)]
    talk = {"split": "val", "data": {"questions": ["what colour?"], "answers": list(NAMES), "dialogs": dialogs}}
    for i, file in enumerate(files):
        (at / f"VisualDialog_val2018_{i:012d}.jpg").write_bytes((at / file).read_bytes())
    (at / "pairs.json").write_text(json.dumps(pairs))
    (at / "asked.jsonl").write_text("\n".join(map(json.dumps, asked)) + "\n")
    (at / "stated.jsonl").write_text("\n".join(map(json.dumps, stated)) + "\n")
    (at / "talk.json").write_text(json.dumps(talk))
    return at


FILES = {
    "blip-caption": "pairs.json",
    "blip-retrieval": "pairs.json",
    "blip-vqa": "asked.jsonl",
    "blip-nlvr": "stated.jsonl",
    "blip-visdial": "talk.json",
}


def sources(folder: Path, name: str, init: str = "tiny") -> TaskSources:
    data = (str(folder / FILES[name]),)
    return TaskSources(data, data, str(folder), init)


@pytest.mark.parametrize(
    ("name", "epochs", "changes", "measure"),
    [
        ("blip-caption", 60, [], "bleu4"),
        ("blip-retrieval", 120, [], "ir5"),  # of eight texts, two for each colour
        ("blip-vqa", 60, [], "overall"),
        ("blip-nlvr", 60, [], "accuracy"),
        ("blip-visdial", 80, ["kind.wrong=3"], "r1"),
    ],
)
def test_every_task_learns_a_handful_of_rows(folder, tmp_path, name, epochs, changes, measure):
    results = tune(name, sources(folder, name), tmp_path, [*LEARN, f"epochs={epochs}", *changes])
    assert results["val"][measure] > 0.99, results
    assert results == read_json(tmp_path / "results.json")
    rows = 16 if name == "blip-nlvr" else 8
    assert (results["rows"], results["steps"], results["unread"]) == (rows, epochs * rows // 8, {})
    model, _ = store.load(tmp_path)  # the run is itself a model
    assert store.MODELS[name if name in store.MODELS else "blip"][0] is type(model)


QUICK = ("train.batch=4", "train.checkpoint_s=0", "train.log_every=1", "epochs=null", "train.steps=6")


def weights(out: Path) -> dict[str, torch.Tensor]:
    return store.load_tensors(out / "model.safetensors")


@pytest.mark.parametrize("name", ["blip-vqa", "blip-nlvr", "blip-visdial"])
def test_stopped_and_resumed_is_bit_for_bit_the_same(folder, tmp_path, monkeypatch, name):
    given = sources(folder, name)
    whole = tune(name, given, tmp_path / "whole", QUICK)
    original = loop._Run.train_step

    def stopping(self, batch):
        values = original(self, batch)
        if self.step == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return values

    monkeypatch.setattr(loop._Run, "train_step", stopping)
    with pytest.raises(Terminated):
        tune(name, given, tmp_path / "parts", QUICK)
    monkeypatch.setattr(loop._Run, "train_step", original)
    monkeypatch.setattr("capfilt.data.pictures.Decoders", None)  # what was read is not read again
    parts = tune(name, given, tmp_path / "parts", QUICK)
    one, two = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(one[k], two[k]) for k in one)
    assert parts["val"] == whole["val"]
    monkeypatch.setattr(loop._Run, "train_step", None)
    assert tune(name, given, tmp_path / "parts", QUICK) == parts


RANK = """
    import json, os, sys, pathlib, torch
    os.environ["CAPFILT_PROGRESS"] = "none"
    torch.set_num_threads(1)
    from capfilt.ranks import from_environment
    from capfilt.recipes.tasks import TaskSources, tune
    name, given, out, sets = json.loads({asked!r})
    given["data"], given["val"] = tuple(given["data"]), tuple(given["val"])
    tune(name, TaskSources(**given), pathlib.Path(out), sets, from_environment())
    torch.distributed.destroy_process_group()
"""


def test_two_processes_train_what_one_does(folder, tmp_path):
    name = "blip-vqa"  # that ranks share every kind of batch is tested with the batches
    given, sets = sources(folder, name), [*QUICK, "train.betas=[0.0, 0.0]", "train.eps=1e-3"]
    tune(name, given, tmp_path / "one", sets)
    code = textwrap.dedent(RANK.format(asked=json.dumps([name, vars(given), str(tmp_path / "two"), sets])))
    port = {"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": str(20000 + os.getpid() % 20000)}
    environment = {**os.environ, **port}
    both = [subprocess.Popen([sys.executable, "-c", code], env={**environment, "RANK": str(r)}) for r in range(2)]
    assert [p.wait(timeout=120) for p in both] == [0, 0]
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert max((one[k].float() - two[k].float()).abs().max().item() for k in one) < 1e-4


def saved_blip(out: Path, **changes) -> Blip:
    """A Blip of large random weights, as a run would leave it."""
    tokenizer = TextTokenizer.train(["what colour is it? all both are the same a picture of", *NAMES], 120)
    torch.manual_seed(1)
    config = dataclasses.replace(PRESETS["tiny"], queue=0, **changes).with_words(tokenizer)
    blip = Blip(config)
    for parameter in blip.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    store.save(blip, tokenizer, out)
    return blip


STILL = (*QUICK[:-1], "train.steps=1", "train.schedule.rate=0.0")


@pytest.mark.parametrize("name", TASKS)
def test_every_task_starts_from_a_blip(folder, tmp_path, name):
    blip = saved_blip(tmp_path / "blip")
    tune(name, sources(folder, name, str(tmp_path / "blip")), tmp_path / "out", STILL)
    found, given = weights(tmp_path / "out"), blip.state_dict()
    assert torch.equal(found["vit.blocks.1.fc1.weight"], given["vit.blocks.1.fc1.weight"])
    text = "dialog" if name == "blip-visdial" else "text"
    assert torch.equal(found[f"{text}.layers.1.fc1.weight"], given["text.layers.1.fc1.weight"])
    config = read_json(tmp_path / "out" / "task.json")["config"]
    assert config["train"]["schedule"]["kind"] == "epoch_cosine" and config["train"]["betas"] == [0.9, 0.999]


def test_a_task_goes_on_from_itself_but_not_from_another(folder, tmp_path):
    saved_blip(tmp_path / "blip")
    tune("blip-vqa", sources(folder, "blip-vqa", str(tmp_path / "blip")), tmp_path / "vqa", STILL)
    tune("blip-vqa", sources(folder, "blip-vqa", str(tmp_path / "vqa")), tmp_path / "on", STILL)
    one, two = weights(tmp_path / "vqa"), weights(tmp_path / "on")
    assert all(torch.equal(one[k], two[k]) for k in one)
    with pytest.raises(ConfigError, match="a vqa model, which blip-nlvr cannot start from"):
        tune("blip-nlvr", sources(folder, "blip-nlvr", str(tmp_path / "vqa")), tmp_path / "no", STILL)
    saved_blip(tmp_path / "mute", roles=("read",))
    with pytest.raises(WeightsError, match="no start for BlipVqa from a Blip that can read"):
        tune("blip-vqa", sources(folder, "blip-vqa", str(tmp_path / "mute")), tmp_path / "none", STILL)


def test_the_papers_settings():
    """The table of hyper-parameters: rate of base and large, batch, epochs, px, drop path."""
    table = {
        "blip-caption": (1e-5, 2e-6, 256, 5, 384, 0.0, 40),
        "blip-retrieval": (1e-5, 5e-6, 256, 6, 384, 0.0, 35),
        "blip-vqa": (2e-5, 2e-5, 256, 10, 480, 0.1, 35),
        "blip-nlvr": (3e-5, 3e-5, 256, 15, 384, 0.1, 512),
        "blip-visdial": (2e-5, 2e-5, 240, 20, 384, 0.0, 512),
    }
    for name, (rate, large, batch, epochs, px, drop_path, longest) in table.items():
        config = TASKS[name](PRESETS["base"])
        train, vit = config.train, config.model.vit
        assert (train.schedule.rate, train.batch, config.epochs, vit.px) == (rate, batch, epochs, px), name
        assert (vit.drop_path, config.longest, train.decay, train.decay_all) == (drop_path, longest, 0.05, True), name
        assert (train.schedule.kind, train.schedule.warmup, train.schedule.floor) == ("epoch_cosine", 0, 0.0)
        big = TASKS[name](PRESETS["large"])
        assert (big.train.schedule.rate, big.model.vit.drop_path) == (large, 0.1), name
    caption, retrieval = TASKS["blip-caption"](PRESETS["base"]), TASKS["blip-retrieval"](PRESETS["base"])
    assert (caption.model.prompt, caption.model.roles, caption.model.queue) == ("a picture of ", ("speak",), 0)
    assert (retrieval.model.roles, retrieval.model.queue, retrieval.kind.k) == (("read", "look"), 57600, 256)
    assert (retrieval.objective.positives, retrieval.train.alpha_epochs) == ("image", 1.0)
    assert TASKS["blip-nlvr"](PRESETS["base"]).model.merge_from == 6


def test_a_checkpoint_made_for_inference_is_tuned_as_the_paper_does():
    vit = dataclasses.replace(PRESETS["base"].vit, px=384)
    text = dataclasses.replace(PRESETS["base"].text, dropout=0.0)  # what the hub's configs say
    for config, name in (
        (dataclasses.replace(PRESETS["base"], vit=vit, text=text, queue=0), "blip-caption"),
        (BlipVqaConfig(vit, text), "blip-vqa"),
        (BlipNlvrConfig(vit, text, merge_from=3), "blip-nlvr"),
    ):
        opened = SimpleNamespace(model=SimpleNamespace(config=config), origin=None)
        found, paper = tasks.configured(name, opened).model, TASKS[name](PRESETS["base"]).model
        assert found.text.dropout == 0.1 and found.vit == paper.vit, name
    assert found.merge_from == 3  # what the weights are made for stays


def test_the_prompt_is_given_and_not_learned():
    tokenizer = TextTokenizer.train(["a picture of two dogs"], 100)
    config = tasks._with_words(TASKS["blip-caption"](PRESETS["tiny"]), tokenizer)
    given = [tokenizer.decode([i]) for i in tokenizer.encode(["a picture of two dogs"])[0][: config.objective.prompt]]
    assert " ".join(given).split() == ["a", "picture", "of"]


def test_what_cannot_be_read_is_counted(folder, tmp_path):
    rows = [{"image": f"{name}.png", "question": "what?", "answer": "x"} for name in ("red0", "red1", "gone", "blue0")]
    path = tmp_path / "asked.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    given = TaskSources((str(path),), (), str(folder), "tiny")
    with pytest.warns(UserWarning, match="1 of 4 rows left out"):
        results = tune("blip-vqa", given, tmp_path / "out", QUICK)
    assert (results["rows"], results["unread"]) == (3, {"missing_file": 1}) and "val" not in results


def test_pairs_may_be_any_collection(folder, tmp_path):
    given = TaskSources((str(folder / "pairs.json"),), (), None, "tiny")
    assert tune("blip-caption", given, tmp_path, QUICK)["rows"] == 8


def test_settings_that_cannot_be(folder, tmp_path):
    given = sources(folder, "blip-vqa")
    with pytest.raises(ConfigError, match="recipe 'vqa' is not one of blip-caption, blip-retrieval"):
        configured("vqa")
    with pytest.raises(ConfigError, match=r"epochs=10 and train.steps=5 both say how long"):
        tune("blip-vqa", given, tmp_path, ["train.steps=5"])
    with pytest.raises(ConfigError, match=r"unknown setting 'kind\.wrong'"):
        tune("blip-vqa", given, tmp_path, ["kind.wrong=5"])
    with pytest.raises(DataError, match="no such file"):
        tune("blip-vqa", TaskSources(("gone.jsonl",), (), None, "tiny"), tmp_path, QUICK)
    tune("blip-vqa", given, tmp_path, QUICK)  # a mistake leaves nothing in the way
    with pytest.raises(ConfigError, match="a run of other settings or data"):
        tune("blip-vqa", given, tmp_path, [*QUICK, "train.seed=1"])
