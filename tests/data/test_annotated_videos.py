"""MSRVTT captions and questions about clips: small files in the official forms, read."""

import json

import pytest

from capfilt.data.annotated import msrvtt
from capfilt.data.annotations import Filmed
from capfilt.errors import DataError


def put(path, value):
    path.write_text(value if isinstance(value, str) else json.dumps(value), "utf-8")
    return path


def test_jsfusion(tmp_path):
    text = (
        'key,vid_key,video_id,sentence\nret0,msr9770,video9770,"a person, connecting"\nret1,msr9771,video9771,a girl\n'
    )
    path = put(tmp_path / "MSRVTT_JSFUSION_test.csv", text)
    assert msrvtt.read_jsfusion(path, "/m") == [
        Filmed("/m/video9770.mp4", ("a person, connecting",), "video9770"),
        Filmed("/m/video9771.mp4", ("a girl",), "video9771"),
    ]
    assert msrvtt.read_jsfusion(path, "/m", suffix="")[0].video == "/m/video9770"
    with pytest.raises(DataError, match="no column 'sentence' among key, video_id"):
        msrvtt.read_jsfusion(put(tmp_path / "x.csv", "key,video_id\n1,2\n"), "/m")


def test_lists(tmp_path):
    rows = (
        '{"clip_name": "video7020", "caption": "a dog", "retrieval_key": "ret0"}\n{"clip_name": "v1", "caption": "b"}\n'
    )
    assert msrvtt.read_list(put(tmp_path / "msrvtt_test.jsonl", rows), "/m") == [
        Filmed("/m/video7020.mp4", ("a dog",), "video7020"),
        Filmed("/m/v1.mp4", ("b",), "v1"),
    ]
    rows = [{"caption": "a dog", "video": "video7020.mp4"}, {"caption": ["x", "y"], "video": "v2.mp4"}]
    assert msrvtt.read_list(put(tmp_path / "msrvtt_test1k.json", rows), "/m") == [
        Filmed("/m/video7020.mp4", ("a dog",), "video7020"),
        Filmed("/m/v2.mp4", ("x", "y"), "v2"),
    ]


def test_videodatainfo(tmp_path):
    clip = {"category": 9, "url": "https://example.org", "start time": 1.0, "end time": 9.0, "id": 0}
    value = {
        "info": {},
        "videos": [
            clip | {"video_id": "video0", "split": "train"},
            clip | {"video_id": "video1", "split": "test"},
        ],
        "sentences": [
            {"caption": "a car", "video_id": "video0", "sen_id": 0},
            {"caption": "a cat", "video_id": "video1", "sen_id": 1},
            {"caption": "a red car", "video_id": "video0", "sen_id": 2},
        ],
    }
    path = put(tmp_path / "videodatainfo.json", value)
    assert msrvtt.read_videodatainfo(path, "/m", "train") == [Filmed("/m/video0.mp4", ("a car", "a red car"), "video0")]
    with pytest.raises(DataError, match="none is of the split asked for"):
        msrvtt.read_videodatainfo(path, "/m", "validate")


def test_questions_about_clips(tmp_path):
    row = {"answer": "couch", "category_id": 14, "id": 158581, "question": "what are three people sitting on?"}
    path = put(tmp_path / "test_qa.json", [row | {"video_id": 6513}])
    (asked,) = msrvtt.read_questions(path, "/m")
    assert (asked.image, asked.image_id, asked.question_id) == ("/m/video6513.mp4", 6513, 158581)
    assert (asked.answers, asked.weights, asked.raw_answers) == (("couch",), (1.0,), ("couch",))
    path = put(tmp_path / "test.jsonl", json.dumps({"answer": "a", "question": "q", "video_id": "video6513"}) + "\n")
    assert msrvtt.read_questions(path, "/m", suffix="")[0].image == "/m/video6513"


def test_names_of_msvd(tmp_path):
    names = msrvtt.read_mapping(
        put(tmp_path / "youtube_mapping.txt", "-4wsuPCjDBc_5_15 vid1\n-7KMZQEsJW4_205_208 vid2\n")
    )
    rows = [{"id": 0, "video_id": number, "question": "who?", "answer": "man"} for number in (2, 3)]
    path = put(tmp_path / "test_qa.json", rows)
    with pytest.warns(UserWarning, match="a clip without a name"):
        (asked,) = msrvtt.read_questions(path, "/m", prefix="vid", suffix=".avi", names=names)
    assert asked.image == "/m/-7KMZQEsJW4_205_208.avi"
    with pytest.raises(DataError, match="a clip's name and its number"):
        msrvtt.read_mapping(put(tmp_path / "x.txt", "only\n"))
