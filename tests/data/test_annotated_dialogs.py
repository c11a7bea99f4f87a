"""VisDial v1.0 and its dense annotations: small files in the official form, read."""

import json

import pytest

from capfilt.data.annotated.visdial import read_visdial
from capfilt.errors import DataError

ANSWERS = [f"answer {i}" for i in range(150)]


def put(path, value):
    path.write_text(json.dumps(value), "utf-8")
    return path


def visdial(split="val", **more):
    turns = [
        {"answer": 7 + i, "answer_options": list(range(i, 100 + i)), "gt_index": 7, "question": i} for i in range(3)
    ]
    dialog = {"caption": "a dog on a sofa", "image_id": 284024, "dialog": turns} | more
    data = {"dialogs": [dialog], "questions": ["is it big", "what color", "any people"], "answers": ANSWERS}
    return {"data": data, "split": split, "version": "1.0"}


def test_dialog(tmp_path):
    (dialog,) = read_visdial(put(tmp_path / "visdial_1.0_val.json", visdial()), "/v")
    assert dialog.image == "/v/VisualDialog_val2018/VisualDialog_val2018_000000284024.jpg"
    assert (dialog.caption, dialog.image_id, len(dialog.rounds)) == ("a dog on a sofa", 284024, 3)
    turn = dialog.rounds[2]
    assert (turn.question, turn.answer, turn.right, turn.relevance) == ("any people", "answer 9", 7, None)
    assert turn.options == tuple(ANSWERS[2:102])
    assert turn.options[turn.right] == turn.answer
    assert dialog.history(2) == (("is it big", "answer 7"), ("what color", "answer 8"))


def test_images_of_train_are_those_of_coco(tmp_path):
    path = put(tmp_path / "visdial_1.0_train.json", visdial("train"))
    assert read_visdial(path, "/c")[0].image == "/c/train2014/COCO_train2014_000000284024.jpg"
    (tmp_path / "val2014").mkdir()
    (tmp_path / "val2014" / "COCO_val2014_000000284024.jpg").touch()
    assert read_visdial(path, tmp_path)[0].image == f"{tmp_path}/val2014/COCO_val2014_000000284024.jpg"


def test_last_round_of_test_is_open(tmp_path):
    turns = [{"question": 0, "answer": 1}, {"question": 1, "answer_options": list(range(100))}]
    (dialog,) = read_visdial(put(tmp_path / "visdial_1.0_test.json", visdial("test", dialog=turns)), "/v")
    assert (dialog.rounds[0].answer, dialog.rounds[0].options) == ("answer 1", ())
    assert (dialog.rounds[1].answer, dialog.rounds[1].right, len(dialog.rounds[1].options)) == (None, None, 100)


def test_dense_annotations_count_rounds_from_one(tmp_path):
    relevance = [0.5, 1.0] + [0.0] * 98
    rows = [
        {"image_id": 284024, "round_id": 2, "gt_relevance": relevance},
        {"image_id": 1, "round_id": 1, "gt_relevance": relevance},
    ]
    dense = put(tmp_path / "visdial_1.0_val_dense_annotations.json", rows)
    with pytest.warns(UserWarning, match="1 annotations left out"):
        (dialog,) = read_visdial(put(tmp_path / "val.json", visdial()), "/v", dense)
    assert [turn.relevance for turn in dialog.rounds] == [None, tuple(relevance), None]


def test_wrong_dialogs(tmp_path):
    wrong = visdial()
    del wrong["data"]["answers"]
    with pytest.raises(DataError, match="no list 'answers'"):
        read_visdial(put(tmp_path / "x.json", wrong), "/v")
    with pytest.raises(DataError, match="'split' is None"):
        read_visdial(put(tmp_path / "x.json", visdial(None)), "/v")
    with pytest.raises(DataError, match="a text that is not in the lists"):
        read_visdial(put(tmp_path / "x.json", visdial(dialog=[{"question": 3}])), "/v")
    with pytest.raises(DataError, match="'gt_index' is none of the options"):
        turn = {"question": 0, "answer": 0, "answer_options": [0, 1], "gt_index": 2}
        read_visdial(put(tmp_path / "x.json", visdial(dialog=[turn])), "/v")
