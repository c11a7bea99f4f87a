"""Rules of the data sets: which answers weigh what, when sides are exchanged, which image a text is of."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from capfilt.data.annotated import coco, vqa
from capfilt.data.annotated.checked import id_of
from capfilt.data.annotations import STATED_WORDS, Asked, Stated, swapped, texts_of
from capfilt.evaluate.replay.compare import Gap, equal
from capfilt.files import write_json
from capfilt.inputs.texts import clean_caption, clean_question
from capfilt.weights.sizes import PROMPT

Record = TypeVar("Record")
Entry = tuple[object, object, object]  # which one, what must come out, what came out


def rules(tables: dict[str, Any]) -> Iterator[Gap]:
    """A gap for every entry of datasets.json; a table that is not known is infinite."""
    for name in tables:
        entries = TABLES[name](tables) if name in TABLES else [("is not known", True, False)]
        yield from (equal(f"datasets.json {name} {what}", want, got) for what, want, got in entries)


def _read(reader: Callable[[Path, str], list[Record]], rows: list[dict]) -> list[Record]:
    """What our reader makes of a file with these rows."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.json"
        write_json(path, rows)
        return reader(path, "")


def _asked(tables: dict[str, Any]) -> list[Asked]:
    rows = [item["annotation"] for item in tables["vqa_train_items"]]
    return _read(vqa.read_list, [{"question_id": i, **row} for i, row in enumerate(rows)])


def _questions(tables: dict[str, Any]) -> Iterator[Entry]:
    for i, (item, asked) in enumerate(zip(tables["vqa_train_items"], _asked(tables), strict=True)):
        yield f"{i} question", item["question"], clean_question(asked.question)
        yield f"{i} answers", item["answers"], list(asked.answers)
        yield f"{i} weights", True, _alike(item["weights"], asked.weights)


def _batch(tables: dict[str, Any]) -> Iterator[Entry]:
    batch, asked = tables["vqa_collate"], _asked(tables)
    yield "answers", batch["answers"], [answer for one in asked for answer in one.answers]
    yield "weights", True, _alike(batch["weights"], [weight for one in asked for weight in one.weights])
    yield "n", batch["n"], [len(one.answers) for one in asked]


def _statements(tables: dict[str, Any]) -> Iterator[Entry]:
    for i, item in enumerate(tables["nlvr_items"]):
        stated = Stated("0", "1", item["sentence"], bool(item["label"]), str(i), str(i))
        if item["uniform_draw"] >= 0.5:
            stated = swapped(stated)
        got = (int(stated.first), int(stated.second or 0), clean_caption(stated.sentence, STATED_WORDS), stated.label)
        yield i, tuple(item[name] for name in ("first_image", "second_image", "text", "label")), got


def _image_ids(tables: dict[str, Any]) -> Iterator[Entry]:
    for item in tables["caption_eval_image_ids"]:
        yield item["file"], item["id"], id_of(item["file"])


def _compared(tables: dict[str, Any]) -> Iterator[Entry]:
    table = tables["retrieval_eval"]
    records = _read(coco.read_list, table["annotation"])
    texts, owners = texts_of(records)
    yield "text", table["text"], [clean_caption(text) for text in texts]
    yield "image", table["image"], [record.image for record in records]
    yield "txt2img", table["txt2img"], {str(i): owner for i, owner in enumerate(owners.tolist())}
    own = {str(i): np.flatnonzero(owners == i).tolist() for i in range(len(records))}
    yield "img2txt", table["img2txt"], own


def _trained(tables: dict[str, Any]) -> Iterator[Entry]:
    table = tables["coco_train"]
    rows = table["annotation"]
    number = {record.image_id: i for i, record in enumerate(_read(coco.read_list, rows))}
    yield "captions", table["captions"], [PROMPT + clean_caption(row["caption"]) for row in rows]
    yield "idx", table["idx"], [number[row["image_id"]] for row in rows]


def _alike(want: list[float], got: list[float] | tuple[float, ...]) -> bool:
    """Equal but for the rounding of single precision."""
    return len(want) == len(got) and bool(np.allclose(want, got, rtol=1e-6, atol=0))


TABLES: dict[str, Callable[[dict[str, Any]], Iterator[Entry]]] = {
    "vqa_train_items": _questions,
    "vqa_collate": _batch,
    "nlvr_items": _statements,
    "caption_eval_image_ids": _image_ids,
    "retrieval_eval": _compared,
    "coco_train": _trained,
}
