"""COCO captions: Karpathy's file, the lists that BLIP uses, the official annotations.

| file | form | read by |
|---|---|---|
| `dataset_coco.json` | {images: [{filepath, filename, cocoid, split, sentences: [{raw}]}]} | `read_karpathy` |
| `coco_karpathy_train.json` | [{image, caption, image_id}], a row each caption | `read_list` |
| `coco_karpathy_val.json`, `_test` | [{image, caption: [...]}] | `read_list` |
| `captions_val2014.json` | {images: [{id, file_name}], annotations: [{image_id, caption}]} | `read_official` |
| `coco_karpathy_val_gt.json` | {images: [{id}], annotations: [{image_id, caption}]} | `read_references` |
"""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from capfilt.data.annotated.checked import (
    BadRow,
    PathLike,
    collect,
    id_of,
    identity,
    placed,
    read_object,
    read_rows,
    told,
    want,
)
from capfilt.data.annotations import Captioned, Id
from capfilt.errors import ConfigError

# Papers train on both: 82,783 images of COCO's train and 30,504 of its val.
SPLITS = {"train": ("train", "restval"), "restval": ("restval",), "val": ("val",), "test": ("test",)}


def read_karpathy(path: PathLike, image_root: PathLike, split: str) -> list[Captioned]:
    """Images of one split of Karpathy's `dataset_{coco,flickr30k,flickr8k}.json`.

    split: `train` (with `restval`, as papers use it), `restval`, `val` or `test`.

    Raises:
        ConfigError: another split.
        DataError: another file, or nothing of that split in it.
    """
    if split not in SPLITS:
        raise ConfigError(f"split {split!r}: choose one of {', '.join(SPLITS)}")

    def make(row: Any) -> list[Captioned]:
        its = want(row, "split", str)
        if its not in SPLITS:
            raise BadRow(f"split {its!r}")
        if its not in SPLITS[split]:
            return []
        folder = want(row, "filepath", str) + "/" if "filepath" in row else ""
        captions = tuple(want(sentence, "raw", str) for sentence in want(row, "sentences", list))
        if not captions:
            raise BadRow("no sentence")
        number = identity(row, "cocoid" if "cocoid" in row else "imgid")
        return [Captioned(placed(image_root, folder + want(row, "filename", str)), captions, number)]

    return collect(path, read_object(path, "images")["images"], make)


def read_list(path: PathLike, image_root: PathLike) -> list[Captioned]:
    """BLIP's lists for COCO and Flickr30k; captions of one image come together, in the order of its first row.

    A row without `image_id` is known by the number in its file's name. The index of a record is the number that the
    original gives an image in training.
    """

    def make(row: Any) -> list[tuple[str, Id, tuple[str, ...]]]:
        name = want(row, "image", str)
        number = identity(row, "image_id") if "image_id" in row else id_of(name)
        return [(placed(image_root, name), number, texts_in(row, "caption"))]

    grouped: dict[tuple[str, Id], list[str]] = defaultdict(list)
    for image, number, captions in collect(path, read_rows(path), make):
        grouped[image, number] += captions
    return [Captioned(image, tuple(captions), number) for (image, number), captions in grouped.items()]


def read_official(path: PathLike, image_root: PathLike) -> list[Captioned]:
    """Images in the order of `images`, with the captions under `annotations`; none where these are kept back."""
    found = read_object(path, "images")
    captions = references(path, found) if "annotations" in found else {}

    def make(row: Any) -> list[Captioned]:
        number = identity(row, "id")
        image = placed(image_root, want(row, "file_name", str))
        return [Captioned(image, captions.pop(number, ()), number, str(row.get("domain") or ""))]

    records = collect(path, found["images"], make)
    if captions:
        told(path, f"captions of {len(captions)} images left out: these are not under 'images'")
    return records


def read_references(path: PathLike) -> dict[Id, tuple[str, ...]]:
    """Image id → its human captions: the files that captions are scored against."""
    return references(path, read_object(path, "annotations"))


def references(path: PathLike, found: Mapping[str, Any]) -> dict[Id, tuple[str, ...]]:
    """Image id → captions, from the `annotations` of a file that was read."""
    grouped: dict[Id, list[str]] = defaultdict(list)
    pairs = collect(path, found["annotations"], lambda row: [(identity(row, "image_id"), want(row, "caption", str))])
    for number, caption in pairs:
        grouped[number].append(caption)
    return {number: tuple(captions) for number, captions in grouped.items()}


def texts_in(row: Any, key: str) -> tuple[str, ...]:
    """One text or a list of texts under a key, as a tuple; BadRow if there is none."""
    value = want(row, key, object)
    texts = (value,) if isinstance(value, str) else value
    if not (isinstance(texts, list | tuple) and texts and all(isinstance(text, str) for text in texts)):
        raise BadRow(f"{key!r} is neither a text nor a list of texts")
    return tuple(texts)
