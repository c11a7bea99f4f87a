"""NoCaps captions: the official files, BLIP's lists, and results for the server.

`nocaps_val_4500_captions.json` has images with a domain and their captions, `nocaps_test_image_info.json` images only:
both are read by `read_official`. `nocaps_val.json` of BLIP is [{img_id, image}]: `read_list`.
"""

from typing import Any

from capfilt.data.annotated.checked import PathLike, collect, identity, placed, read_rows, want
from capfilt.data.annotated.coco import read_official, read_references
from capfilt.data.annotations import Captioned

__all__ = ["read_list", "read_official", "read_references"]


def read_list(path: PathLike, image_root: PathLike) -> list[Captioned]:
    """Images to caption; the list has no captions."""

    def make(row: Any) -> list[Captioned]:
        return [Captioned(placed(image_root, want(row, "image", str)), (), identity(row, "img_id"))]

    return collect(path, read_rows(path), make)
