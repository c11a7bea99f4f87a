"""VisDial v1.0: `visdial_1.0_{train,val,test}.json` and the dense annotations.

{data: {dialogs: [{image_id, caption, dialog: [{question, answer, answer_options, gt_index}]}], questions: [...],
answers: [...]}, split, version}, where question, answer and answer_options are places in the two lists of texts. Dense
annotations are [{image_id, round_id, gt_relevance: [...]}], with rounds counted from 1, one round a dialog.
"""

from typing import Any

from capfilt.data.annotated.checked import (
    BadRow,
    PathLike,
    check_lists,
    collect,
    identity,
    placed,
    read_rows,
    told,
    want,
)
from capfilt.data.annotations import Dialog, Id, Round
from capfilt.errors import DataError
from capfilt.files import read_json

Relevance = dict[tuple[Id, int], tuple[float, ...]]


def read_visdial(path: PathLike, image_root: PathLike, dense: PathLike | None = None) -> list[Dialog]:
    """Dialogs in the file's order. In the test split the last round has neither answer nor right option.

    Images of train are COCO's (`train2014/COCO_train2014_000000000009.jpg` or val2014), of val and test
    `VisualDialog_val2018_000000000009.jpg`, in a folder of that name or right under the root.

    Raises:
        DataError: another file, or dense annotations that fit none of the rounds.
    """
    value = read_json(path)
    data = check_lists(path, value.get("data") if isinstance(value, dict) else value, "dialogs", "questions", "answers")
    split = value.get("split")
    if split not in ("train", "val", "test"):
        raise DataError(f"{path}: 'split' is {split!r}, not train, val or test; is it VisDial v1.0?")
    relevance = {} if dense is None else _dense(dense)

    def make(row: Any) -> list[Dialog]:
        number = want(row, "image_id", int)
        rounds = tuple(
            _round(turn, data["questions"], data["answers"], relevance.pop((number, index), None))
            for index, turn in enumerate(want(row, "dialog", list), 1)
        )
        return [Dialog(_image(image_root, split, number), want(row, "caption", str), rounds, number)]

    records = collect(path, data["dialogs"], make)
    if relevance:
        told(dense or path, f"{len(relevance)} annotations left out: their rounds are not in {path}")
    return records


def _round(turn: Any, questions: list[str], answers: list[str], relevance: tuple[float, ...] | None) -> Round:
    question = _text(questions, want(turn, "question", int))
    listed = want(turn, "answer_options", list) if "answer_options" in turn else []
    options = tuple(_text(answers, place) for place in listed)
    right = want(turn, "gt_index", int) if "gt_index" in turn else None
    if right is not None and not 0 <= right < len(options):
        raise BadRow("'gt_index' is none of the options")
    if relevance is not None and len(relevance) != len(options):
        raise BadRow("another number of relevances than options")
    answer = _text(answers, turn["answer"]) if "answer" in turn else None
    return Round(question, answer, options, right, relevance)


def _text(texts: list[str], place: int) -> str:
    if not (isinstance(place, int) and 0 <= place < len(texts)):
        raise BadRow("a text that is not in the lists")
    return texts[place]


def _image(root: PathLike, split: str, number: int) -> str:
    if split == "train":
        names = [f"COCO_{part}_{number:012d}.jpg" for part in ("train2014", "val2014")]
    else:
        names = [f"VisualDialog_{split}2018_{number:012d}.jpg"]
    inner = [f"{name.rpartition('_')[0].removeprefix('COCO_')}/{name}" for name in names]
    return placed(root, *inner, *names)


def _dense(path: PathLike) -> Relevance:
    def make(row: Any) -> list[tuple[tuple[Id, int], tuple[float, ...]]]:
        shares = want(row, "gt_relevance" if "gt_relevance" in row else "relevance", list)  # the train sample's word
        if not all(isinstance(share, int | float) for share in shares):
            raise BadRow("a relevance that is not a number")
        return [((identity(row, "image_id"), want(row, "round_id", int)), tuple(map(float, shares)))]

    return dict(collect(path, read_rows(path), make))
