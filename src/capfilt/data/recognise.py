"""Annotation files told apart by what is in them, never by their names, and read by the reader they belong to.

| task | files |
|---|---|
| captions | Karpathy's, the official COCO and NoCaps ones, BLIP's lists, Flickr30k's token file |
| questions | VQAv2's questions beside their annotations, Visual Genome's, BLIP's lists, our own rows |
| statements | NLVR2's, NLVR's, BLIP's lists, our own rows |
| dialogues | VisDial's, beside their dense annotations |
| clips | MSRVTT's: the table of the 1k test, lists, videodatainfo |
| questions about clips | MSRVTT-QA's, MSVD-QA's beside the mapping of their names |
"""

import json
from collections.abc import Sequence
from typing import Any

from capfilt.data.annotated import coco, flickr30k, msrvtt, nlvr2, nocaps, simple, visdial, vqa
from capfilt.data.annotated.checked import PathLike, read_text
from capfilt.data.annotations import Asked, Captioned, Dialog, Filmed, Stated
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
        elif "img_id" in head:
            found += nocaps.read_list(path, root)
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
    """Dialogs of all files. Dense annotations belong to the dialogs in the order given."""
    heads = [(path, _head(path)[1]) for path in paths]
    dense = [path for path, head in heads if {"gt_relevance", "relevance"} & head.keys()]
    talks = [path for path, _ in heads if path not in dense]
    if len(dense) > len(talks):
        raise DataError(f"{dense[len(talks)]}: dense annotations without their dialogs; name that file too")
    annotations = [*dense, *[None] * (len(talks) - len(dense))]
    return [d for path, its in zip(talks, annotations, strict=True) for d in visdial.read_visdial(path, root, its)]


def read_films(paths: Sequence[PathLike], root: PathLike, split: str, suffix: str = ".mp4") -> list[Filmed]:
    """Clips and their captions. split: as in MSRVTT's file, whose `validate` may be called `val`."""
    found: list[Filmed] = []
    for path in paths:
        _, head = _head(path)
        if "videos" in head:
            found += msrvtt.read_videodatainfo(path, root, {"val": "validate"}.get(split, split), suffix)
        elif "caption" in head:
            found += msrvtt.read_list(path, root, suffix)
        elif head:
            raise _unknown(path, "clips", head, "videos and sentences, or rows of video and caption")
        else:
            found += msrvtt.read_jsfusion(path, root, suffix)
    return found


def read_film_questions(paths: Sequence[PathLike], root: PathLike, suffix: str = ".mp4") -> list[Asked]:
    """Questions about clips; with a mapping of names they are MSVD's, whose numbers are `vid1` and so on."""
    maps = [path for path in paths if not _head(path)[1]]
    names = {number: name for path in maps for number, name in msrvtt.read_mapping(path).items()} or None
    prefix = "video" if names is None else "vid"
    asked = [path for path in paths if path not in maps]
    if not asked:
        raise DataError(f"{', '.join(map(str, maps))}: names of clips, but no questions about them; name that file too")
    return [one for path in asked for one in msrvtt.read_questions(path, root, prefix, suffix, names)]


def _head(path: PathLike) -> tuple[bool, dict[str, Any]]:
    """Whether it is a JSON list, and its first row, or the one object that it is; empty where it is no JSON.

    Raises DataError for what begins as JSON and breaks off.
    """
    text, wrong = read_text(path).lstrip(), ""
    listed = text.startswith("[")
    for part in (text,) if listed else (text.partition("\n")[0], text):
        try:
            value = json.loads(part)
        except (ValueError, RecursionError) as error:
            wrong = str(error)
            continue
        value = (value or [{}])[0] if isinstance(value, list) else value
        return listed, value if isinstance(value, dict) else {}
    if text.startswith(("[", "{")):
        raise DataError(f"{path}: broken JSON ({wrong})")
    return listed, {}


def _unknown(path: PathLike, what: str, head: dict[str, Any], wanted: str) -> DataError:
    return DataError(
        f"{path}: no file of {what} that is known here; it has {', '.join(head) or 'no JSON'}, not {wanted}"
    )
