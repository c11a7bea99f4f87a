"""Annotation files told apart by what is in them, never by their names, and read by the reader they belong to.

| task | files |
|---|---|
| captions | Karpathy's, the official COCO and NoCaps ones, BLIP's lists, Flickr30k's token file |
| questions | VQAv2's questions beside their annotations, Visual Genome's, BLIP's lists, our own rows |
| statements | NLVR2's, NLVR's, BLIP's lists, our own rows |
| dialogues | VisDial's |
"""

import json
from collections.abc import Sequence
from typing import Any

from capfilt.data.annotated import coco, flickr30k, nlvr2, simple, visdial, vqa
from capfilt.data.annotated.checked import PathLike, read_text
from capfilt.data.annotations import Asked, Captioned, Dialog, Stated
from capfilt.errors import DataError


def read_captions(paths: Sequence[PathLike], root: PathLike, split: str) -> list[Captioned]:
    """Captioned images of all files. split: which part of a file that holds several."""
    found: list[Captioned] = []
    for path in paths:
        _, head = _head(path)
        images = head.get("images")
        if isinstance(images, list) and images and "sentences" in images[0]:
            found += coco.read_karpathy(path, root, split)
        elif isinstance(images, list):
            found += coco.read_official(path, root)
        elif "image" in head:
            found += coco.read_list(path, root)
        elif head:
            raise _unknown(path, "captions", head, "images with sentences or annotations, or rows of image and caption")
        else:
            found += flickr30k.read_tokens(path, root)
    return found


def read_questions(paths: Sequence[PathLike], root: PathLike) -> list[Asked]:
    """Questions of all files. Files of VQAv2's annotations belong to its files of questions, in the order given."""
    found: list[Asked] = []
    heads = [(path, _head(path)[1]) for path in paths]
    annotations = [path for path, head in heads if "annotations" in head and "questions" not in head]
    for path, head in heads:
        if "questions" in head:
            found += vqa.read_vqav2(path, root, annotations.pop(0) if annotations else None)
        elif "qas" in head:
            found += vqa.read_visual_genome(path, root)
        elif "dataset" in head:
            found += vqa.read_list(path, root)
        elif "question" in head:
            found += simple.read_asked(path, root)
        elif "annotations" not in head:
            raise _unknown(path, "questions", head, "questions, qas, or rows of image, question and answer")
    if annotations:
        raise DataError(f"{annotations[0]}: annotations without their questions; name that file too")
    return found


def read_statements(paths: Sequence[PathLike], root: PathLike, split: str) -> list[Stated]:
    """Statements of all files. split: the folder of NLVR's pictures."""
    found: list[Stated] = []
    for path in paths:
        listed, head = _head(path)
        if "identifier" in head:
            of_pairs = str(head["identifier"]).count("-") == 3
            found += nlvr2.read_nlvr2(path, root) if of_pairs else nlvr2.read_nlvr(path, root, split)
        elif "sentence" in head:
            found += nlvr2.read_list(path, root) if listed else simple.read_stated(path, root)
        else:
            raise _unknown(path, "statements", head, "rows of identifier or images, sentence and label")
    return found


def read_dialogs(paths: Sequence[PathLike], root: PathLike) -> list[Dialog]:
    """Dialogs of all files."""
    return [dialog for path in paths for dialog in visdial.read_visdial(path, root)]


def _head(path: PathLike) -> tuple[bool, dict[str, Any]]:
    """Whether it is a JSON list, and its first row, or the one object that it is; empty where it is no JSON."""
    text = read_text(path).lstrip()
    listed = text.startswith("[")
    for part in (text,) if listed else (text.partition("\n")[0], text):
        try:
            value = json.loads(part)
        except (ValueError, RecursionError):
            continue
        value = (value or [{}])[0] if isinstance(value, list) else value
        return listed, value if isinstance(value, dict) else {}
    return listed, {}


def _unknown(path: PathLike, what: str, head: dict[str, Any], wanted: str) -> DataError:
    return DataError(
        f"{path}: no file of {what} that is known here; it has {', '.join(head) or 'no JSON'}, not {wanted}"
    )
