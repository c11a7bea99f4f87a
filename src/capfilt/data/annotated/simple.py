"""Our own forms, one JSON object a line, for data that has no official file.

| a row | gives |
|---|---|
| {image, question, answer} or {image, question, answers: [...]} | `Asked`; several answers weigh as many as gave them |
| {images: [first, second], sentence, label} or {image, sentence, label} | `Stated`, about a pair or about one image |

`question_id`, `answer_type`, `question_type`, `id` and `group` may stand in a row; ids are the row's number (from 0)
unless they do, an image's id is its name. Images are paths under the image root.
"""

from typing import Any

from capfilt.data.annotated.checked import BadRow, PathLike, collect, identity, placed, read_rows, want
from capfilt.data.annotated.coco import texts_in
from capfilt.data.annotated.nlvr2 import label_of
from capfilt.data.annotations import Asked, Stated, weighed


def read_asked(path: PathLike, image_root: PathLike) -> list[Asked]:
    """Questions; a row without an answer is one to be answered."""

    def make(numbered: tuple[int, Any]) -> list[Asked]:
        number, row = numbered
        name, question = want(row, "image", str), want(row, "question", str)
        key = "answers" if "answers" in row else "answer"
        raw = texts_in(row, key) if key in row else ()
        answers, weights = weighed(raw)
        return [
            Asked(
                image=placed(image_root, name),
                question=question,
                answers=answers,
                weights=weights,
                raw_answers=raw,
                question_id=identity(row, "question_id") if "question_id" in row else number,
                image_id=name,
                answer_type=str(row.get("answer_type", "")),
                question_type=str(row.get("question_type", "")),
            )
        ]

    return collect(path, list(enumerate(read_rows(path))), make)


def read_stated(path: PathLike, image_root: PathLike) -> list[Stated]:
    """Statements. Those with the same sentence make a group unless a row names its group."""

    def make(numbered: tuple[int, Any]) -> list[Stated]:
        number, row = numbered
        sentence = want(row, "sentence", str)
        images = texts_in(row, "images" if "images" in row else "image")
        if len(images) != 2 and "images" in row:
            raise BadRow("`images` that are not two; one stands under `image`")
        first, second = (*(placed(image_root, image) for image in images), None)[:2]
        group = str(row.get("group", sentence))
        return [Stated(str(first), second, sentence, label_of(row), str(row.get("id", number)), group)]

    return collect(path, list(enumerate(read_rows(path))), make)
