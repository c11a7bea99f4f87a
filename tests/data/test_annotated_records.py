"""Records of annotations, and the reading they share: weights, the swap of a pair, ids from names, wrong files."""

import json

import numpy as np
import pytest

from capfilt.data.annotated.checked import BadRow, collect, id_of, placed, read_object, read_rows, want
from capfilt.data.annotations import Captioned, Dialog, Round, Stated, swapped, texts_of, weighed
from capfilt.errors import DataError
from capfilt.inputs.texts import clean_caption


@pytest.fixture(scope="module")
def golden(shared):
    return json.loads((shared / "golden/blip/08_preprocess/datasets.json").read_text("utf-8"))


def test_answers_weigh_as_many_as_gave_them():
    assert weighed(("cup", "mug", "cup", "glass")) == (("cup", "mug", "glass"), (0.5, 0.25, 0.25))
    assert weighed(()) == ((), ())


def test_swap_by_hand():
    stated = Stated("a.png", "b.png", "Left of the LEFT-hand door, right?  A cat is right", True, "x-0-0-0", "x-0-0")
    other = swapped(stated)
    assert (other.first, other.second) == ("b.png", "a.png")
    assert other.sentence == "right of the left-hand door, right? a cat is left"  # whole words only
    assert (other.label, other.id, other.group) == (True, "x-0-0-0", "x-0-0")
    assert swapped(swapped(other)) == other
    alone = Stated("a.png", None, "The left box", False, "1", "1")
    assert swapped(alone) is alone


def test_golden_swap(golden):
    for case in golden["nlvr_items"]:
        stated = Stated("0", "1", case["sentence"], bool(case["label"]), "", "")
        if case["uniform_draw"] >= 0.5:  # below it the original leaves the pair as it is
            stated = swapped(stated)
        assert (stated.first, stated.second) == (str(case["first_image"]), str(case["second_image"]))
        assert clean_caption(stated.sentence, 40) == case["text"]


def test_golden_ids_of_names(golden):
    for case in golden["caption_eval_image_ids"]:
        assert id_of(case["file"]) == case["id"]
    assert id_of("a/gpj.jpg") == "gpj"  # the original strips the letters of ".jpg", not the suffix
    assert id_of("coco_7.PNG") == 7


def test_golden_retrieval_maps(golden):
    case = golden["retrieval_eval"]
    records = [Captioned(row["image"], tuple(row["caption"]), i) for i, row in enumerate(case["annotation"])]
    texts, owners = texts_of(records)
    assert [clean_caption(text) for text in texts] == case["text"]
    assert {str(text): int(image) for text, image in enumerate(owners)} == case["txt2img"]
    assert owners.dtype == np.int64


def test_history_holds_earlier_rounds_only():
    rounds = tuple(Round(f"q{i}", f"a{i}", ("a0", "a1"), 0) for i in range(3))
    dialog = Dialog("x.jpg", "a cat", rounds, 1)
    assert dialog.history(0) == ()
    assert dialog.history(2) == (("q0", "a0"), ("q1", "a1"))


def test_lists_and_lines_are_told_apart_by_content(tmp_path):
    (tmp_path / "lines.json").write_text('{"a": 1}\n\n{"a": 2}', "utf-8")  # no newline at the end
    (tmp_path / "list.jsonl").write_text('\ufeff [{"a": 1}, {"a": 2}]', "utf-8")
    assert read_rows(tmp_path / "lines.json") == read_rows(tmp_path / "list.jsonl") == [{"a": 1}, {"a": 2}]


def test_bad_rows_are_counted_and_told(tmp_path):
    rows = [{"a": "x"}, {"b": 1}, {"a": 3}, None, {"b": 2}]
    with pytest.warns(UserWarning, match=r"f.json: 4 of 5 rows left out: no 'a' \(2\), 'a' is int, not str"):
        assert collect("f.json", rows, lambda row: [want(row, "a", str)]) == ["x"]
    with pytest.raises(DataError, match=r"f.json: none of 2 rows can be used: no 'a' \(1\), not a JSON object \(1\)"):
        collect("f.json", [{"b": 1}, 7], lambda row: [want(row, "a", str)])


def test_wrong_files_are_one_line(tmp_path):
    path = tmp_path / "x.json"
    with pytest.raises(DataError, match="no such file"):
        read_rows(path)
    path.write_text('{"info": 1, "annotations": []}', "utf-8")
    with pytest.raises(DataError, match=r"no list 'images' in it \(it has 'info', 'annotations'\)"):
        read_object(path, "images")
    path.write_text("[1", "utf-8")
    for read in (read_rows, read_object):
        with pytest.raises(DataError, match="not JSON"):
            read(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="cannot be read as text"):
        read_rows(path)


def test_paths_stay_under_the_root(tmp_path):
    for name in ("../x.jpg", "/etc/x.jpg", "a/../../x.jpg", "C:\\x.jpg"):
        with pytest.raises(BadRow):
            placed(tmp_path, name)
    assert placed(tmp_path, "a.jpg", "b.jpg") == f"{tmp_path}/a.jpg"  # none is there: the first name
    (tmp_path / "b.jpg").touch()
    assert placed(tmp_path, "a.jpg", "b.jpg") == f"{tmp_path}/b.jpg"
    (tmp_path / "a.jpg").touch()
    assert placed(tmp_path, "a.jpg", "b.jpg") == f"{tmp_path}/a.jpg"
