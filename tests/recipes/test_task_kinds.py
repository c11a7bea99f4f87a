"""What a kind hands down: candidates that training knows, the sides of kept pictures, the folder of NLVR's pictures."""

import dataclasses
import json

import numpy as np
import pytest

from capfilt.data.annotations import Asked
from capfilt.data.pictures import Album
from capfilt.errors import ConfigError
from capfilt.evaluate.tasks import Measured
from capfilt.models.blip import PRESETS
from capfilt.recipes import TASKS, task_kinds
from capfilt.recipes.task_kinds import Pairs, Part, Questions, Records, Statements

NOTHING = Album(np.zeros((0, 8, 8, 3), np.uint8), {}, {})


@pytest.mark.parametrize(("answers", "wanted"), [(2, ["yes", "no"]), (9, ["yes", "no", "red"]), (0, None)])
def test_candidates_are_the_commonest_training_answers(monkeypatch, answers, wanted):
    said = (("yes",), ("no", "yes"), ("no", "yes", "red"))
    learned = Records([Asked("a", "?", each, (1.0,) * len(each), each, 0) for each in said], NOTHING)
    asked = []
    monkeypatch.setattr(task_kinds, "Answerer", lambda *_, max_length: max_length)
    monkeypatch.setattr(task_kinds, "measure_answers", lambda *given: asked.append(given) or Measured({}, []))
    Questions(answers, 7).measure(None, None, learned, learned, 12)
    assert asked == [(12, learned.rows, NOTHING, wanted, 7)]


def test_nlvr_calls_its_validation_part_dev(tmp_path, monkeypatch):
    row = {"identifier": "12-0", "sentence": "It is so.", "label": "true", "directory": 0}
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(row) + "\n")
    monkeypatch.setattr(task_kinds, "open_album", lambda names, *_: list(names))
    for split, folder in (("train", "train"), ("val", "dev")):
        found = Statements().read(Part((str(path),), None, split, tmp_path, 8))
        assert found.album[0] == str(tmp_path / folder / "images" / "0" / f"{folder}-12-0-0.png")


def test_crops_are_cut_from_larger_pictures():
    config = TASKS["blip-vqa"](PRESETS["base"])
    assert (config.kept_px, config.longest) == (548, 35)
    assert dataclasses.replace(config, augmentation=None, max_length=None).kept_px == 480
    assert dataclasses.replace(config, max_length=None).longest == 512
    assert dataclasses.replace(config, store_px=500).kept_px == 500


def test_one_collection_at_a_time(tmp_path):
    with pytest.raises(ConfigError, match="2 collections; give one, or annotation files with their --images"):
        Pairs().read(Part(("a", "b"), None, "train", tmp_path, 8))
