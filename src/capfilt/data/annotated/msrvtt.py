"""MSRVTT clips with captions, and questions about clips (MSRVTT-QA, MSVD-QA).

| file | form | read by |
|---|---|---|
| `MSRVTT_JSFUSION_test.csv` (the 1k test) | key,vid_key,video_id,sentence | `read_jsfusion` |
| `msrvtt_test.jsonl`, `msrvtt_test1k.json` | a row each: {clip_name or video, caption} | `read_list` |
| `videodatainfo.json` | {videos: [{video_id, split}], sentences: [{video_id, caption}]} | `read_videodatainfo` |
| `test_qa.json` | [{id, video_id, question, answer}] | `read_questions` |

A clip is `FOLDER/NAME` plus `suffix`: ".mp4", or "" where every clip is a folder of frames.
"""

import csv
import io
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from capfilt.data.annotated.checked import (
    BadRow,
    PathLike,
    collect,
    identity,
    placed,
    read_object,
    read_rows,
    read_text,
    told,
    want,
)
from capfilt.data.annotated.coco import texts_in
from capfilt.data.annotations import Asked, Filmed, Id
from capfilt.errors import DataError


def read_jsfusion(path: PathLike, video_root: PathLike, suffix: str = ".mp4") -> list[Filmed]:
    """The 1k test split that papers report: one caption a clip."""
    table = csv.DictReader(io.StringIO(read_text(path), newline=""))
    if missing := {"video_id", "sentence"} - set(table.fieldnames or ()):
        raise DataError(f"{path}: no column {sorted(missing)[0]!r} among {', '.join(table.fieldnames or ())}")
    return _clips(path, list(table), video_root, suffix, "video_id", "sentence")


def read_list(path: PathLike, video_root: PathLike, suffix: str = ".mp4") -> list[Filmed]:
    """Rows of {clip_name, caption} or {video, caption}; a `video` that has the suffix already does not get another."""
    rows = read_rows(path)
    named = "clip_name" if rows and isinstance(rows[0], dict) and "clip_name" in rows[0] else "video"
    return _clips(path, rows, video_root, suffix, named, "caption")


def read_videodatainfo(path: PathLike, video_root: PathLike, split: str, suffix: str = ".mp4") -> list[Filmed]:
    """Clips of one split (`train`, `validate`, `test`) with all their captions, twenty in MSRVTT."""
    found = read_object(path, "videos", "sentences")
    captions: dict[Id, list[str]] = defaultdict(list)
    pairs = collect(path, found["sentences"], lambda row: [(identity(row, "video_id"), want(row, "caption", str))])
    for video, caption in pairs:
        captions[video].append(caption)

    def make(row: Any) -> list[Filmed]:
        name = want(row, "video_id", str)
        texts = tuple(captions.pop(name, ()))
        if want(row, "split", str) != split:
            return []
        if not texts:
            raise BadRow("no caption")
        return [Filmed(placed(video_root, name + suffix), texts, name)]

    records = collect(path, found["videos"], make)
    if captions:
        told(path, f"captions of {len(captions)} clips left out: these are not under 'videos'")
    return records


def read_questions(
    path: PathLike,
    video_root: PathLike,
    prefix: str = "video",
    suffix: str = ".mp4",
    names: Mapping[Id, str] | None = None,
) -> list[Asked]:
    """Questions with one answer each; `image` and `image_id` of a record are the clip's.

    prefix: stands before a `video_id` that is a number: "video" for MSRVTT-QA, "vid" for MSVD-QA.
    names: clip file of each `vid…` where they are named otherwise (MSVD: `read_mapping`).
    """

    def make(row: Any) -> list[Asked]:
        number = identity(row, "video_id")
        name = f"{prefix}{number}" if isinstance(number, int) else number
        if names is not None:
            if name not in names:
                raise BadRow("a clip without a name in the mapping")
            name = names[name]
        one = (want(row, "answer", str),)
        clip = placed(video_root, name + suffix)
        question = identity(row, "id") if "id" in row else f"{number}: {row.get('question')}"
        return [Asked(clip, want(row, "question", str), one, (1.0,), one, question, number)]

    return collect(path, read_rows(path), make)


def read_mapping(path: PathLike) -> dict[Id, str]:
    """MSVD's `youtube_mapping.txt`: lines of a clip's file name and its `vid…` → that the other way round."""
    lines = [line.split() for line in read_text(path).split("\n") if line.strip()]
    wrong = next((line for line in lines if len(line) != 2), None)
    if wrong or not lines:
        raise DataError(f"{path}: lines of a clip's name and its number were expected, not {' '.join(wrong or ())!r}")
    return {number: name for name, number in lines}


def _clips(path: PathLike, rows: list[Any], root: PathLike, suffix: str, named: str, texts: str) -> list[Filmed]:
    def make(row: Any) -> list[tuple[str, tuple[str, ...]]]:
        return [(want(row, named, str), texts_in(row, texts))]

    grouped: dict[str, list[str]] = defaultdict(list)
    for name, captions in collect(path, rows, make):
        grouped[name] += captions
    return [
        Filmed(
            placed(root, name if name.endswith(suffix) else name + suffix), tuple(captions), name.removesuffix(suffix)
        )
        for name, captions in grouped.items()
    ]
