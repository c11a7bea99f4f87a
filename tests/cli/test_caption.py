"""`capfilt caption` on a small model: a caption a line, errors told and counted, folders, JSON lines."""

import dataclasses
import importlib
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image

import capfilt as package
from capfilt.cli.caption import _growing
from capfilt.inputs.tokenizer import TextTokenizer
from capfilt.models.blip import PRESETS, Blip
from capfilt.predict import use
from capfilt.predict.replicas import Replicas
from capfilt.weights import store


@pytest.fixture(scope="module")
def given(tmp_path_factory) -> tuple[str, Path]:
    """A captioner, and a folder with three pictures, one of them below, and a page that is none."""
    folder = tmp_path_factory.mktemp("caption")
    words = TextTokenizer.train(["a red cube beside a blue ball"], 64)
    config = dataclasses.replace(PRESETS["tiny"], roles=("speak",), queue=0).with_words(words)
    model, generator = Blip(config), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.normal_(1.0 if name.endswith("norm.weight") else 0.0, 0.3, generator=generator)
    store.save(model, words, folder / "model")
    (folder / "pictures" / "below").mkdir(parents=True)
    for i, name in enumerate(("a.png", "below/b.PNG", "c.jpg")):
        noise = np.random.default_rng(i).integers(0, 256, (40, 60, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / "pictures" / name)
    (folder / "pictures" / "page.html").write_text("<html>")
    return str(folder / "model"), folder / "pictures"


@pytest.fixture(scope="module")
def wanted(given) -> list[str]:
    """What the model writes about the three, in the order of their names."""
    model, folder = given
    names = ("a.png", "below/b.PNG", "c.jpg")
    return [caption.text for caption in package.load(model).caption([folder / name for name in names], beams=2)]


def test_one_picture_is_its_caption_alone(capfilt, given, wanted):
    model, folder = given
    assert capfilt("caption", str(folder / "a.png"), "--model", model, "--beams", "2") == (0, wanted[0] + "\n", "")


def test_a_folder_is_a_line_a_picture(capfilt, given, wanted, monkeypatch):
    model, folder = given
    monkeypatch.setenv("CAPFILT_MODEL", model)
    code, out, err = capfilt("caption", str(folder), "--beams", "2")
    assert (code, err) == (0, "")
    names = [str(folder / name) for name in ("a.png", "below/b.PNG", "c.jpg")]
    assert [line.split("\t") for line in out.splitlines()] == [[n, w] for n, w in zip(names, wanted, strict=True)]


def test_json_lines_and_several_captions(capfilt, given):
    model, folder = given
    words = ("caption", str(folder / "a.png"), str(folder / "page.html"), "--model", model, "--json", "--top-p", ".9")
    code, out, err = capfilt(*words, "--n", "3")
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 3 and err == "capfilt: 1 of 2 pictures have no caption\n"
    assert [set(row) for row in rows] == [{"image", "caption", "score"}] * 3 + [{"image", "error"}]
    assert rows[3]["error"].startswith("not_an_image: ")


def test_a_prompt_begins_and_a_search_of_one_is_greedy(capfilt, given):
    model, folder = given
    picture = str(folder / "a.png")
    plain, prompted = (
        capfilt("caption", picture, "--model", model, "--beams", "1", "--prompt", prompt)[1]
        for prompt in ("", "a red cube")
    )
    want = package.load(model)
    assert plain.strip() == want.caption(picture, beams=1, prompt="").text
    assert prompted.strip() == want.caption(picture, beams=1, prompt="a red cube").text != plain.strip()


def test_a_bad_picture_costs_its_line_and_the_exit_code(capfilt, given, wanted):
    model, folder = given
    gone = str(folder / "gone.png")
    code, out, err = capfilt("caption", gone, str(folder / "a.png"), "--model", model, "--beams", "2")
    assert code == 3 and out == f"{folder / 'a.png'}\t{wanted[0]}\n"
    assert err.splitlines() == [
        f"capfilt: missing_file: {gone}: no such file",
        "capfilt: 1 of 2 pictures have no caption",
    ]
    assert capfilt("caption", gone, "--model", model) == (3, "", f"capfilt: missing_file: {gone}: no such file\n")


def test_what_can_be_wrong(capfilt, given, tmp_path, monkeypatch):
    monkeypatch.delenv("CAPFILT_MODEL", raising=False)
    model, folder = given
    picture = str(folder / "a.png")
    for words, said, number in (
        ((picture, "--model", model, "--prefix", "x"), "--prefix belong to files", 2),
        ((picture, "--model", model, "--ext", ".txt", "--json"), "--json is for what is printed", 2),
        ((picture, "--model", model, "--ext", ".png"), "no suffix for texts", 2),
        ((picture, "--model", model, "--ext", "txt", "--template", "{tags}"), "no field {tags}", 2),
        ((picture, "--model", model, "--ext", "txt", "--template", "{name}"), "has no {caption}", 2),
        ((picture, "--model", model, "--ext", "txt", "--existing", "keep"), "keep", 2),
        ((str(tmp_path), "--model", model), "no picture in this folder", 3),
        ((picture, "--model", model, "--beams", "3", "--top-p", ".9"), "belong to", 2),
        ((picture, "--model", model, "--precision", "fp7"), "fp7", 2),
        ((picture, "--model", str(tmp_path / "gone")), "no such file or folder", 4),
    ):
        code, out, err = capfilt("caption", *words)
        assert (code, out) == (number, "") and said in err and err.count("\n") == 1


def test_without_a_model_the_own_one_writes_and_says_so(capfilt, given, wanted, monkeypatch):
    model, folder = given
    monkeypatch.delenv("CAPFILT_MODEL", raising=False)
    own = ModuleType("capfilt.recipes.own")
    vars(own).update(captioner=lambda: Path(model), about=lambda: "the demo's own")
    monkeypatch.setitem(sys.modules, own.__name__, own)
    monkeypatch.setattr(importlib.import_module("capfilt.recipes"), "own", own, raising=False)
    code, out, err = capfilt("caption", str(folder / "a.png"), "--beams", "2")
    assert (code, out) == (0, wanted[0] + "\n")
    assert err == "capfilt: no --model given: the demo's own\n"


def test_devices_share_the_pictures_and_the_lines_stay(capfilt, given, wanted, monkeypatch):
    model, folder = given
    monkeypatch.setenv("CAPFILT_DEVICE", "cpu,cpu")
    monkeypatch.setattr(use, "MANY", 2)
    monkeypatch.setattr(use, "CHUNK", 1)
    taken = []
    monkeypatch.setattr(
        Replicas, "_dealt", lambda self, jobs, dealt=Replicas._dealt: taken.append(self) or dealt(self, jobs)
    )
    code, out, err = capfilt("caption", str(folder), "--model", model, "--beams", "2")
    assert (code, err, len(taken)) == (0, "", 1)
    assert [line.split("\t")[1] for line in out.splitlines()] == wanted


def test_calls_grow_and_lose_nothing():
    paths = [Path(str(i)) for i in range(1500)]
    parts = list(_growing(paths, 512))
    assert [path for part in parts for path in part] == paths
    assert [len(part) for part in parts] == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 477]
