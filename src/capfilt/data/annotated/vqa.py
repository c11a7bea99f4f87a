"""VQAv2 and Visual Genome questions: the official files and the lists that BLIP uses.

| file | form | read by |
|---|---|---|
| `v2_OpenEnded_*_questions.json` | {data_subtype, questions: [{image_id, question, question_id}]} | `read_vqav2` |
| `v2_mscoco_*_annotations.json` | {annotations: [{question_id, answers: [{answer}], ...}]} | `read_vqav2` |
| `question_answers.json` | [{id, qas: [{question, answer, qa_id, image_id}]}] | `read_visual_genome` |
| `vqa_train.json`, `vg_qa.json`, ... | [{question_id, question, answer, image, dataset}] | `read_list` |
"""

from typing import Any

from capfilt.data.annotated.checked import (
    BadRow,
    PathLike,
    check_lists,
    collect,
    id_of,
    identity,
    placed,
    read_object,
    read_rows,
    told,
    want,
)
from capfilt.data.annotated.coco import texts_in
from capfilt.data.annotations import Asked, Id, weighed
from capfilt.errors import DataError

GENOME_WEIGHT = 0.2  # of a Visual Genome answer: one person's, and worded freely (BLIP's data set)


def read_vqav2(questions: PathLike, image_root: PathLike, annotations: PathLike | None = None) -> list[Asked]:
    """Questions of one split; without annotations (test) their answers are empty.

    Images are `train2014/COCO_train2014_000000000009.jpg` under the root, or that file right in it.

    Raises:
        DataError: another file, or annotations that belong to none of the questions.
    """
    found = read_object(questions, "questions")
    if not isinstance(found.get("data_subtype"), str):
        raise DataError(f"{questions}: no 'data_subtype' (such as 'val2014') that would name its images")
    subtype = found["data_subtype"].replace("test-dev", "test")  # test-dev is a part of test
    answered = {} if annotations is None else _annotations(annotations)

    def make(row: Any) -> list[Asked]:
        image = f"COCO_{subtype}_{want(row, 'image_id', int):012d}.jpg"
        number = identity(row, "question_id")
        if annotations is not None and number not in answered:
            raise BadRow("no annotation")
        notes = answered.pop(number, {})
        raw = tuple(want(answer, "answer", str) for answer in notes.get("answers", ()))
        return [
            Asked(
                image=placed(image_root, f"{subtype}/{image}", image),
                question=want(row, "question", str),
                **_answers(raw),
                question_id=number,
                image_id=row["image_id"],
                answer_type=str(notes.get("answer_type", "")),
                question_type=str(notes.get("question_type", "")),
            )
        ]

    records = collect(questions, found["questions"], make)
    if answered:
        told(questions, f"{len(answered)} annotations left out: their questions are not here")
    return records


def read_visual_genome(path: PathLike, image_root: PathLike) -> list[Asked]:
    """Visual Genome's own file. Images are `NUMBER.jpg` under the root, in `VG_100K` or in `VG_100K_2`."""
    rows = read_rows(path)
    for row in rows[:1]:
        check_lists(path, row, "qas")

    def make(row: Any) -> list[Asked]:
        name = f"{identity(row, 'image_id')}.jpg"
        image = placed(image_root, name, f"VG_100K/{name}", f"VG_100K_2/{name}")
        one = (want(row, "answer", str),)
        question, weights = want(row, "question", str), (GENOME_WEIGHT,)
        return [Asked(image, question, one, weights, one, identity(row, "qa_id"), row["image_id"])]

    listed = (row["qas"] if isinstance(row, dict) and isinstance(row.get("qas"), list) else [row] for row in rows)
    return collect(path, [qa for qas in listed for qa in qas], make)  # a row without a list is counted as a bad one


def read_list(path: PathLike, image_root: PathLike, genome_root: PathLike | None = None) -> list[Asked]:
    """BLIP's lists: `dataset` is `vqa`, whose answers weigh as many as gave them, or `vg`, whose one answer weighs 0.2.

    genome_root: where the images of `vg` rows are; `image_root` unless told.
    """

    def make(row: Any) -> list[Asked]:
        name, dataset = want(row, "image", str), want(row, "dataset", str)
        if dataset not in ("vqa", "vg"):
            raise BadRow(f"dataset {dataset!r}")
        genome = dataset == "vg"
        raw = texts_in(row, "answer") if "answer" in row else ()
        answers = {"answers": raw, "weights": (GENOME_WEIGHT,) * len(raw), "raw_answers": raw}
        return [
            Asked(
                image=placed(genome_root if genome and genome_root is not None else image_root, name),
                question=want(row, "question", str),
                **(answers if genome else _answers(raw)),
                question_id=identity(row, "question_id"),
                image_id=id_of(name),
            )
        ]

    return collect(path, read_rows(path), make)


def _annotations(path: PathLike) -> dict[Id, dict[str, Any]]:
    def make(row: Any) -> list[tuple[Id, dict[str, Any]]]:
        want(row, "answers", list)
        return [(identity(row, "question_id"), row)]

    return dict(collect(path, read_object(path, "annotations")["annotations"], make))


def _answers(raw: tuple[str, ...]) -> dict[str, Any]:
    answers, weights = weighed(raw)
    return {"answers": answers, "weights": weights, "raw_answers": raw}
