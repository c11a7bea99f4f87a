"""Frames of a clip: from a video file through PyAV (extra `video`), or from a folder of frame images without it.

Shapes: F frames, each squashed to px × px as images are (`inputs.images.to_pixels`). The original lets its decoder
resize, so pixels differ from its own by a few levels.
"""

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image

from capfilt.errors import ConfigError, DataError, ImageError
from capfilt.inputs.images import SUFFIXES, decode, to_pixels

FRAMES = 8  # of a clip in BLIP's text-to-video retrieval; its video question answering takes 16
LEAST_PRESENT = 0.9  # of the frames that a header counts: whole files may lack a few, a file cut short lacks many


def frames(
    path: Path | str, count: int = FRAMES, px: int = 384, faithful: bool = False
) -> UInt8[np.ndarray, "f px px 3"]:
    """`count` frames evenly from a clip's beginning to its end; a clip with fewer gives some of them twice.

    path: a video file, or a folder of frame images, which are put in the order of the numbers in their names.
    faithful: the original's indices, see `frame_indices`.

    Raises:
        DataError: a video file where PyAV is not installed.
        ImageError: `missing_file`, `empty` (no frame), `truncated`, `unreadable`, or as `inputs.images.decode`.
    """
    if not os.path.exists(path):
        raise ImageError("missing_file", f"{path}: no such clip")
    pictures = _of_folder(Path(path), count, faithful) if os.path.isdir(path) else _of_file(path, count, faithful)
    return np.stack([to_pixels(picture, px) for picture in pictures])


def frame_indices(total: int, count: int, faithful: bool = False) -> Int[np.ndarray, "f"]:
    """Which of `total` frames to take: frame floor(i · total / count) for i = 0 .. count - 1.

    faithful: as BLIP's evaluation has it, whole steps of floor(total / count) from the first frame, which leaves out
    the end of a clip and shows the first frame only where there are fewer than `count`.
    """
    if count < 1 or total < 1:
        raise ConfigError(f"frames: {count} of a clip of {total}; both must be at least 1")
    steps = np.arange(count)
    return steps * (total // count) if faithful else steps * total // count


def _of_folder(folder: Path, count: int, faithful: bool) -> list[Image.Image]:
    names = [name for name in os.listdir(folder) if name.rpartition(".")[2].lower() in SUFFIXES and name[0] != "."]
    if not names:
        raise ImageError("empty", f"{folder}: no frame images in this folder")
    names.sort(key=_natural)
    chosen = frame_indices(len(names), count, faithful).tolist()
    decoded = {}
    for index in set(chosen):
        try:
            decoded[index] = decode((folder / names[index]).read_bytes())
        except ImageError as error:
            raise ImageError(error.reason, f"{folder / names[index]}: {error}") from None
        except OSError as error:
            raise ImageError("unreadable", f"{folder / names[index]}: {error.strerror}") from None
    return [decoded[index] for index in chosen]


def _natural(name: str) -> list[tuple[int, int | str]]:
    """frame2 before frame10: numbers as numbers, the rest as text."""
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in re.split(r"(\d+)", name) if part]


def _of_file(path: Path | str, count: int, faithful: bool) -> list[Image.Image]:
    try:
        import av
    except ImportError:
        raise DataError(
            f"{path}: PyAV reads video files: `pip install capfilt[video]`, or give a folder of frame images."
        ) from None
    try:
        total = _length(av, path)
        chosen = frame_indices(total, count, faithful).tolist()
        wanted, decoded = set(chosen), {}
        with av.open(str(path)) as clip:
            for index, frame in enumerate(clip.decode(video=0)):
                if index in wanted:
                    decoded[index] = frame.to_image()
                if len(decoded) == len(wanted):
                    break
    except av.FFmpegError as error:
        raise ImageError("unreadable", f"{path}: {error.strerror}") from None
    if len(decoded) < len(wanted):
        raise ImageError(
            "truncated", f"{path}: {total} encoded frames, but of them frame {min(wanted - set(decoded))} is not there"
        )
    return [decoded[index] for index in chosen]


def _length(av: Any, path: Path | str) -> int:
    """How many encoded frames there are; what a header tells is not always there, nor always right."""
    with av.open(str(path)) as clip:
        told = clip.streams.video[0].frames if clip.streams.video else 0  # 0 where the format does not say
        total = sum(packet.size > 0 for packet in clip.demux(video=0)) if clip.streams.video else 0
    if total < told * LEAST_PRESENT:
        raise ImageError("truncated", f"{path}: {total} frames of the {told} that its header tells")
    if not total:
        raise ImageError("empty", f"{path}: no video frame in it")
    return total
