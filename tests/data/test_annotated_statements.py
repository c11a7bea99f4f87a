"""NLVR2, BLIP's lists of it, NLVR and our own form: small files in those forms, read."""

import json

import pytest

from capfilt.data.annotated import nlvr2, simple
from capfilt.data.annotations import Stated
from capfilt.errors import DataError


def lines(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


PAIR = {
    "validation": {"77": "True"},
    "sentence": "All the bottles are closed.",
    "left_url": "https://example.org/a.jpg",
    "writer": "103",
    "label": "True",
    "right_url": "https://example.org/b.jpg",
    "synset": "beer bottle",
    "query": "some beer bottles2",
    "identifier": "test1-189-0-1",
    "extra_validations": {"56": "True"},
}


def test_nlvr2(tmp_path):
    path = lines(tmp_path / "test1.json", PAIR, PAIR | {"identifier": "test1-189-3-1", "label": "False"})
    first, second = nlvr2.read_nlvr2(path, "/n")
    left, right = (f"/n/images/test1/test1-189-0-img{side}.png" for side in (0, 1))
    assert first == Stated(left, right, "All the bottles are closed.", True, "test1-189-0-1", "test1-189-1")
    assert (second.label, second.group) == (False, first.group)  # the same sentence of the same set
    (tmp_path / "test1").mkdir()
    (tmp_path / "test1" / "test1-189-0-img0.png").touch()
    (tmp_path / "test1-189-0-img1.png").touch()
    first = nlvr2.read_nlvr2(path, tmp_path)[0]
    assert first.first == f"{tmp_path}/test1/test1-189-0-img0.png"
    assert first.second == f"{tmp_path}/test1-189-0-img1.png"


def test_nlvr2_train_has_directories(tmp_path):
    row = {k: v for k, v in PAIR.items() if k != "label"} | {"identifier": "train-10171-0-0", "directory": 28}
    (record,) = nlvr2.read_nlvr2(lines(tmp_path / "train.json", row), "/n")
    assert record.first == "/n/images/train/28/train-10171-0-img0.png"
    assert record.label is None


def test_wrong_statements(tmp_path):
    path = lines(tmp_path / "x.json", PAIR, PAIR | {"identifier": "3-0"}, PAIR | {"label": "maybe"})
    with pytest.warns(UserWarning, match="2 of 3 rows left out"):
        assert len(nlvr2.read_nlvr2(path, "/n")) == 1
    with pytest.raises(DataError, match="no 'images'"):
        nlvr2.read_list(path, "/n")


def test_lists_of_blip(tmp_path):
    row = {"sentence": "A.", "label": "False", "images": ["dev/dev-850-0-img0.png", "dev/dev-850-0-img1.png"]}
    other = row | {"sentence": "B.", "label": "True"}
    far = row | {"images": ["dev/dev-850-2-img0.png", "dev/dev-850-2-img1.png"]}
    path = tmp_path / "nlvr_dev.json"
    path.write_text(json.dumps([row, other, far]), "utf-8")
    first, second, third = nlvr2.read_list(path, "/n")
    assert (first.first, first.second) == ("/n/dev/dev-850-0-img0.png", "/n/dev/dev-850-0-img1.png")
    assert [r.label for r in (first, second, third)] == [False, True, False]
    assert len({r.id for r in (first, second, third)}) == 3
    assert first.group == third.group != second.group


def test_nlvr(tmp_path):
    row = {
        "sentence": "There is a blue tower.",
        "identifier": "3266-0",
        "directory": "4",
        "label": "true",
        "evals": {"r0": "true"},
        "structured_rep": [[], [], []],
    }
    records = nlvr2.read_nlvr(lines(tmp_path / "dev.json", row), "/n")
    assert len(records) == 6
    assert records[5] == Stated(
        "/n/dev/images/4/dev-3266-0-5.png", None, "There is a blue tower.", True, "dev-3266-0-5", "3266"
    )
    named = {"id": "3266-1", "sentence": "S", "label": False, "images": ["hidden/images/0/hidden-3266-1-0.png"]}
    (record,) = nlvr2.read_nlvr(lines(tmp_path / "hidden.jsonl", named), "/n")
    assert record == Stated("/n/hidden/images/0/hidden-3266-1-0.png", None, "S", False, "hidden-3266-1-0", "3266")


def test_our_own_form(tmp_path):
    rows = [
        {"images": ["a.png", "b.png"], "sentence": "S", "label": True, "id": "x"},
        {"image": "c.png", "sentence": "S", "label": "false"},
        {"image": "d.png", "sentence": "S", "group": "g"},
    ]
    assert simple.read_stated(lines(tmp_path / "dev.jsonl", *rows), "/r") == [
        Stated("/r/a.png", "/r/b.png", "S", True, "x", "S"),
        Stated("/r/c.png", None, "S", False, "1", "S"),
        Stated("/r/d.png", None, "S", None, "2", "g"),
    ]
    with pytest.raises(DataError, match="`images` that are not two"):
        simple.read_stated(lines(tmp_path / "x.jsonl", {"images": ["a", "b", "c"], "sentence": "S"}), "/r")
