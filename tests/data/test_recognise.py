"""Every kind of annotation file is told by what is in it, whatever it is called."""

import json

import pytest

from capfilt.data.recognise import (
    read_captions,
    read_dialogs,
    read_film_questions,
    read_films,
    read_questions,
    read_statements,
)
from capfilt.errors import DataError

KARPATHY = {
    "images": [
        {"filename": "a.jpg", "imgid": 1, "split": "train", "sentences": [{"raw": "A dog."}]},
        {"filename": "b.jpg", "imgid": 2, "split": "val", "sentences": [{"raw": "A cat."}]},
    ]
}
OFFICIAL = {
    "images": [{"id": 1, "file_name": "a.jpg"}],
    "annotations": [{"id": 3, "image_id": 1, "caption": "A dog."}],
}
ASKED = {"data_subtype": "val2014", "questions": [{"image_id": 1, "question": "what?", "question_id": 5}]}
ANSWERED = {"annotations": [{"question_id": 5, "answers": [{"answer": "dog"}] * 10}]}
VISDIAL = {
    "split": "val",
    "version": "1.0",
    "data": {
        "questions": ["is it?"],
        "answers": ["yes", "no"],
        "dialogs": [
            {
                "image_id": 1,
                "caption": "a dog",
                "dialog": [{"question": 0, "answer": 0, "answer_options": [1, 0], "gt_index": 1}],
            }
        ],
    },
}
NLVR2 = {"identifier": "dev-1-0-1", "sentence": "It is so.", "label": "True"}
NLVR = {"identifier": "12-0", "sentence": "It is so.", "label": "false", "directory": 3}


@pytest.fixture
def write(tmp_path):
    def put(value, lines=False):
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.txt"
        text = value if isinstance(value, str) else json.dumps(value)
        path.write_text("\n".join(map(json.dumps, value)) if lines else text)
        return str(path)

    return put


def test_captions(write):
    def names(value, split="train", **how):
        return [(r.image, r.captions) for r in read_captions([write(value, **how)], "at", split)]

    assert names(KARPATHY) == [("at/a.jpg", ("A dog.",))]
    assert names(KARPATHY, "val") == [("at/b.jpg", ("A cat.",))]
    assert names(OFFICIAL) == [("at/a.jpg", ("A dog.",))]
    assert names([{"image": "a.jpg", "caption": ["A", "B"]}]) == [("at/a.jpg", ("A", "B"))]
    assert names([{"img_id": 4, "image": "val/x.jpg"}]) == [("at/val/x.jpg", ())]
    assert names("7.jpg#0\tA dog.\n7.jpg#1\tTwo.\n") == [("at/7.jpg", ("A dog.", "Two."))]
    assert len(read_captions([write(KARPATHY), write(OFFICIAL)], "at", "train")) == 2


def test_questions(write):
    plain = [{"image": "a.png", "question": "what?", "answer": "cat"}] * 2
    listed = [{"image": "a.png", "question": "what?", "answer": ["x", "x"], "question_id": 1, "dataset": "vqa"}]
    genome = [{"id": 1, "qas": [{"question": "what?", "answer": "tree", "qa_id": 9, "image_id": 1}]}]
    paths = [write(ANSWERED), write(plain, lines=True), write(ASKED), write(listed), write(genome)]
    found = read_questions(paths, "at")
    assert [asked.answers for asked in found] == [("cat",), ("cat",), ("dog",), ("x",), ("tree",)]
    assert [asked.weights for asked in found[2:]] == [(1.0,), (1.0,), (0.2,)]
    with pytest.raises(DataError, match="annotations without their questions"):
        read_questions(paths[:1], "at")


def test_statements(write):
    ours = [{"images": ["a.png", "b.png"], "sentence": "So?", "label": True, "group": "g"}]
    paths = [write(ours, lines=True), write(ours), write([NLVR2], lines=True), write([NLVR], lines=True)]
    pair, listed, nlvr2, *nlvr = read_statements(paths, "at", "dev")
    assert pair.group == "g" and listed.group != "g"
    assert (nlvr2.first, nlvr2.label) == ("at/images/dev/dev-1-0-img0.png", True)
    assert len(nlvr) == 6 and nlvr[0].first == "at/dev/images/3/dev-12-0-0.png" and nlvr[0].second is None


def test_dialogs(write):
    talk, dense = write(VISDIAL), write([{"image_id": 1, "round_id": 1, "gt_relevance": [0.5, 1.0]}])
    assert [d.caption for d in read_dialogs([talk] * 2, "at")] == ["a dog"] * 2
    assert read_dialogs([dense, talk], "at")[0].rounds[0].relevance == (0.5, 1.0)
    assert read_dialogs([talk], "at")[0].rounds[0].relevance is None
    with pytest.raises(DataError, match="dense annotations without their dialogs"):
        read_dialogs([dense], "at")


def test_films(write):
    sentences = {"sentences": [{"caption": "a car", "video_id": "video0"}]}
    told = {"videos": [{"video_id": "video0", "split": "validate"}], **sentences}
    paths = [
        write("key,vid_key,video_id,sentence\nret0,msr7,video7,a girl\n"),
        write([{"clip_name": "video8", "caption": "a dog"}], lines=True),
        write(told),
    ]
    names = ["at/video7.avi", "at/video8.avi", "at/video0.avi"]
    assert [film.video for film in read_films(paths, "at", "val", ".avi")] == names
    with pytest.raises(DataError, match="no file of clips that is known here; it has model_type"):
        read_films([write({"model_type": "blip"})], "at", "test")


def test_questions_about_films(write):
    asked = write([{"id": 1, "video_id": 5, "question": "who?", "answer": "girl"}])
    names = write("-4wsuPCjDBc_5_15 vid5\n")
    assert [one.image for one in read_film_questions([asked], "at")] == ["at/video5.mp4"]
    assert [one.image for one in read_film_questions([names, asked], "at", "")] == ["at/-4wsuPCjDBc_5_15"]
    with pytest.raises(DataError, match="names of clips, but no questions"):
        read_film_questions([names], "at")


@pytest.mark.parametrize("read", [lambda p: read_captions(p, "at", "val"), lambda p: read_questions(p, "at")])
def test_another_file_says_what_it_has(write, read):
    with pytest.raises(DataError, match=r"no file of \w+ that is known here; it has model_type, not"):
        read([write({"model_type": "blip"})])


@pytest.mark.parametrize("text", ['[{"image": "a.jpg", "caption": "A do', '{"images": [\n{"id": 1}\n'])
def test_json_that_breaks_off_is_told(tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(DataError, match=r"x\.json: broken JSON"):
        read_captions([tmp_path / "x.json"], "/r", "val")


def test_no_json_is_no_statement(write):
    with pytest.raises(DataError, match="it has no JSON, not rows of identifier"):
        read_statements([write("nothing")], "at", "val")
    with pytest.raises(DataError, match="no such file"):
        read_statements(["gone.json"], "at", "val")
