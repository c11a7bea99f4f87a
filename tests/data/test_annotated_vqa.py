"""VQAv2 and Visual Genome questions, and our own simple form: small files in those forms, read."""

import json

import pytest

from capfilt.data.annotated import simple, vqa
from capfilt.data.annotations import Asked
from capfilt.errors import DataError
from capfilt.inputs.texts import clean_question

TEN = ["net"] * 6 + ["netting"] * 3 + ["mesh"]


def put(path, value):
    path.write_text(json.dumps(value), "utf-8")
    return path


def questions(tmp_path, *rows, subtype="val2014"):
    head = {"info": {}, "task_type": "Open-Ended", "data_type": "mscoco", "license": {}, "data_subtype": subtype}
    return put(tmp_path / f"v2_OpenEnded_mscoco_{subtype}_questions.json", head | {"questions": list(rows)})


def annotations(tmp_path, *rows):
    head = {"info": {}, "license": {}, "data_subtype": "val2014", "data_type": "mscoco"}
    return put(tmp_path / "v2_mscoco_val2014_annotations.json", head | {"annotations": list(rows)})


def annotation(number, answers=TEN):
    return {
        "question_type": "what is this",
        "multiple_choice_answer": answers[0],
        "answers": [{"answer": a, "answer_confidence": "maybe", "answer_id": i} for i, a in enumerate(answers, 1)],
        "image_id": 458752,
        "answer_type": "other",
        "question_id": number,
    }


ROW = {"image_id": 458752, "question": "What is this photo taken looking through?", "question_id": 458752000}


def test_vqav2(tmp_path):
    paths = questions(tmp_path, ROW), annotations(tmp_path, annotation(458752000))
    (record,) = vqa.read_vqav2(paths[0], tmp_path, paths[1])
    assert record == Asked(
        image=f"{tmp_path}/val2014/COCO_val2014_000000458752.jpg",
        question="What is this photo taken looking through?",
        answers=("net", "netting", "mesh"),
        weights=(0.6, 0.3, 0.1),
        raw_answers=tuple(TEN),
        question_id=458752000,
        image_id=458752,
        answer_type="other",
        question_type="what is this",
    )
    (tmp_path / "COCO_val2014_000000458752.jpg").touch()  # images without a folder for the split
    (record,) = vqa.read_vqav2(paths[0], tmp_path, paths[1])
    assert record.image == f"{tmp_path}/COCO_val2014_000000458752.jpg"


def test_vqav2_test_split_has_no_answers(tmp_path):
    (record,) = vqa.read_vqav2(questions(tmp_path, ROW, subtype="test-dev2015"), "/coco")
    assert record.image == "/coco/test2015/COCO_test2015_000000458752.jpg"
    assert record.answers == record.weights == record.raw_answers == ()


def test_vqav2_halves_that_do_not_meet(tmp_path):
    asked = questions(tmp_path, ROW, ROW | {"question_id": 1})
    noted = annotations(tmp_path, annotation(458752000), annotation(2))
    with pytest.warns(UserWarning) as told:
        assert len(vqa.read_vqav2(asked, "/coco", noted)) == 1
    assert "1 of 2 rows left out: no annotation (1)" in str(told[0].message)
    assert "1 annotations left out: their questions are not here" in str(told[1].message)
    with pytest.raises(DataError, match="no annotation"):
        vqa.read_vqav2(asked, "/coco", annotations(tmp_path, annotation(3)))
    with pytest.raises(DataError, match="no list 'questions'"):
        vqa.read_vqav2(noted, "/coco", asked)  # the two files in the wrong order
    with pytest.raises(DataError, match="no 'data_subtype'"):
        vqa.read_vqav2(put(tmp_path / "q.json", {"questions": [ROW]}), "/coco")


def test_visual_genome(tmp_path):
    qa = {"a_objects": [], "question": "What color is the clock?", "image_id": 1, "qa_id": 986768, "q_objects": []}
    rows = [{"id": 1, "qas": [qa | {"answer": "Green."}, qa | {"qa_id": 2, "answer": "Red."}]}, {"id": 2, "qas": []}]
    path = put(tmp_path / "question_answers.json", rows)
    (tmp_path / "VG_100K_2").mkdir()
    (tmp_path / "VG_100K_2" / "1.jpg").touch()
    first, second = vqa.read_visual_genome(path, tmp_path)
    assert first.image == f"{tmp_path}/VG_100K_2/1.jpg"
    assert (first.question, first.answers, first.weights) == ("What color is the clock?", ("Green.",), (0.2,))
    assert (first.question_id, first.image_id, second.question_id) == (986768, 1, 2)
    with pytest.raises(DataError, match="no list 'qas'"):
        vqa.read_visual_genome(put(tmp_path / "x.json", [{"id": 1, "regions": []}]), "/vg")


def test_golden_lists_of_blip(shared, tmp_path):
    golden = json.loads((shared / "golden/blip/08_preprocess/datasets.json").read_text("utf-8"))
    items = golden["vqa_train_items"]
    rows = [item["annotation"] | {"question_id": i} for i, item in enumerate(items)]
    records = vqa.read_list(put(tmp_path / "vqa_train.json", rows), "/coco", genome_root="/vg")
    for record, item in zip(records, items, strict=True):
        assert clean_question(record.question) == item["question"]
        assert list(record.answers) == item["answers"]
        assert record.weights == pytest.approx(item["weights"])
        assert record.image == ("/vg/im.png" if item["annotation"]["dataset"] == "vg" else "/coco/im.png")
        assert len(record.raw_answers) == (1 if item["annotation"]["dataset"] == "vg" else 10)
    flat = [weight for record in records for weight in record.weights]
    assert flat == pytest.approx(golden["vqa_collate"]["weights"])
    assert [len(record.answers) for record in records] == golden["vqa_collate"]["n"]


def test_lists_of_blip_without_answers_and_of_other_sets(tmp_path):
    row = {"question_id": 5, "question": "Why?", "image": "test2015/COCO_test2015_000000000262.jpg", "dataset": "vqa"}
    path = put(tmp_path / "vqa_test.json", [row, row | {"dataset": "gqa"}])
    with pytest.warns(UserWarning, match="dataset 'gqa'"):
        (record,) = vqa.read_list(path, "/coco")
    assert (record.answers, record.question_id, record.image_id) == ((), 5, 262)


def test_our_own_form(tmp_path):
    rows = [
        {"image": "train/images/0.png", "question": "what is the blue shape?", "answer": "rectangle"},
        {"image": "1.png", "question": "how many?", "answers": ["2", "2", "two", "3"], "answer_type": "number"},
        {"image": "1.png", "question": "why?", "question_id": "q9"},
    ]
    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    first, second, third = simple.read_asked(path, "/e")
    assert first == Asked(
        "/e/train/images/0.png",
        "what is the blue shape?",
        ("rectangle",),
        (1.0,),
        ("rectangle",),
        0,
        "train/images/0.png",
    )
    assert (second.answers, second.weights) == (("2", "two", "3"), (0.5, 0.25, 0.25))
    assert (second.raw_answers, second.question_id, second.answer_type) == (("2", "2", "two", "3"), 1, "number")
    assert (third.answers, third.question_id) == ((), "q9")
