"""Statements about images: NLVR2's JSON lines (pairs of photographs), BLIP's lists of them, and NLVR's (drawn boxes).

| file | a row | read by |
|---|---|---|
| `train.json`, `dev.json`, `test1.json` of NLVR2 | {identifier, sentence, label: "True", directory} | `read_nlvr2` |
| `nlvr_train.json` of BLIP | {images: [a, b], sentence, label: "True"} | `read_list` |
| `train.json`, `dev.json` of NLVR | {identifier, sentence, label: "true", directory} | `read_nlvr` |
"""

import posixpath
from typing import Any

from capfilt.data.annotated.checked import BadRow, PathLike, collect, placed, read_rows, want
from capfilt.data.annotations import Stated

PERMUTATIONS = 6  # pictures that NLVR draws of one example: the orders of its three boxes


def read_nlvr2(path: PathLike, image_root: PathLike) -> list[Stated]:
    """The official files. An identifier is SPLIT-SET-PAIR-SENTENCE; its images are SPLIT-SET-PAIR-img0.png and -img1.

    They are looked for in `images/SPLIT/DIRECTORY/`, `SPLIT/DIRECTORY/` (train has directories), `images/SPLIT/`,
    `SPLIT/` and right in the root.
    """

    def make(row: Any) -> list[Stated]:
        name = want(row, "identifier", str)
        parts = name.split("-")
        if len(parts) != 4:
            raise BadRow("'identifier' is not SPLIT-SET-PAIR-SENTENCE")
        split, group, pair, sentence = parts
        inner = f"/{row['directory']}" if "directory" in row else ""
        folders = [f"{before}{split}{after}/" for after in dict.fromkeys((inner, "")) for before in ("images/", "")]
        left, right = (
            placed(image_root, *(f"{folder}{split}-{group}-{pair}-img{side}.png" for folder in (*folders, "")))
            for side in (0, 1)
        )
        return [Stated(left, right, want(row, "sentence", str), label_of(row), name, f"{split}-{group}-{sentence}")]

    return collect(path, read_rows(path), make)


def read_list(path: PathLike, image_root: PathLike) -> list[Stated]:
    """BLIP's lists. Statements are known by their images and, where a pair has two, by which comes first."""
    seen: dict[str, int] = {}

    def make(row: Any) -> list[Stated]:
        images = want(row, "images", list)
        if len(images) != 2 or not all(isinstance(image, str) for image in images):
            raise BadRow("'images' is not a pair of names")
        pair = posixpath.basename(images[0]).removesuffix("-img0.png")
        number = seen[pair] = seen.get(pair, -1) + 1
        sentence = want(row, "sentence", str)
        group = f"{pair.rpartition('-')[0]}: {sentence}"  # the list does not say which sentence of its set it is
        first, second = (placed(image_root, image) for image in images)
        return [Stated(first, second, sentence, label_of(row), f"{pair}-{number}", group)]

    return collect(path, read_rows(path), make)


def read_nlvr(path: PathLike, image_root: PathLike, split: str = "dev") -> list[Stated]:
    """NLVR's files: each permutation of an example's boxes is a picture, and each picture a statement of its own.

    Pictures are `SPLIT/images/DIRECTORY/SPLIT-IDENTIFIER-0.png` to `-5.png`. A row that names its pictures under
    `images`, and itself under `id`, is read as well. All of an example's pictures, and the other examples that its
    sentence was written for, make a group: that is how NLVR counts consistency.
    """

    def make(row: Any) -> list[Stated]:
        if "images" in row:
            name, images = want(row, "id", str), want(row, "images", list)
        else:
            name, folder = want(row, "identifier", str), f"{split}/images/{row.get('directory', 0)}"
            images = [f"{folder}/{split}-{name}-{k}.png" for k in range(PERMUTATIONS)]
        if not images or not all(isinstance(image, str) for image in images):
            raise BadRow("'images' holds no names")
        sentence, label, group = want(row, "sentence", str), label_of(row), name.partition("-")[0]
        return [
            Stated(
                placed(image_root, image),
                None,
                sentence,
                label,
                posixpath.splitext(posixpath.basename(image))[0],
                group,
            )
            for image in images
        ]

    return collect(path, read_rows(path), make)


def label_of(row: dict[str, Any]) -> bool | None:
    """A truth value or its name in any case; None where the row has none."""
    label = row.get("label")
    if label is None or isinstance(label, bool):
        return label
    if str(label).lower() not in ("true", "false"):
        raise BadRow("'label' is neither true nor false")
    return str(label).lower() == "true"
