"""Flickr30k captions: `dataset_flickr30k.json`, BLIP's lists (both as for COCO), and `results_20130124.token`."""

import posixpath
from collections import defaultdict

from capfilt.data.annotated.checked import BadRow, PathLike, collect, placed, read_text
from capfilt.data.annotated.coco import read_karpathy, read_list
from capfilt.data.annotations import Captioned

__all__ = ["read_karpathy", "read_list", "read_tokens"]


def read_tokens(path: PathLike, image_root: PathLike) -> list[Captioned]:
    """Lines of `NAME.jpg#NUMBER`, a tab, and a caption; images in the order of their first line. It has no splits."""
    grouped: dict[str, list[str]] = defaultdict(list)
    lines = [line for line in read_text(path).split("\n") if line.strip()]
    for image, caption in collect(path, lines, lambda line: [_line(line, image_root)]):
        grouped[image].append(caption)
    return [
        Captioned(image, tuple(captions), posixpath.splitext(posixpath.basename(image))[0])
        for image, captions in grouped.items()
    ]


def _line(line: str, image_root: PathLike) -> tuple[str, str]:
    key, tab, caption = line.rstrip("\r").partition("\t")
    name, _, number = key.rpartition("#")
    if not (tab and name and number.isdecimal()):
        raise BadRow("not NAME#NUMBER, tab, caption")
    return placed(image_root, name), caption
