"""Frames of clips: which ones, from folders and from files, and every way a clip can be wrong."""

import sys

import numpy as np
import pytest
from PIL import Image

from capfilt.data.video import frame_indices, frames
from capfilt.errors import ConfigError, DataError, ImageError


def shade(index):
    return 20 * index + 10


def folder_of(path, count, name="frame{}.png"):
    path.mkdir()
    for index in range(count):
        Image.new("RGB", (24, 16), (shade(index),) * 3).save(path / name.format(index))
    return path


def clip_of(path, count, size=(64, 48), **options):
    av = pytest.importorskip("av", reason="video files need the extra `video`")
    with av.open(str(path), "w", options=options) as clip:
        stream = clip.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for index in range(count):
            picture = np.full((size[1], size[0], 3), shade(index), np.uint8)
            clip.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        clip.mux(stream.encode())
    return path


def shades(found):
    """Which frames these are, by their grey; a codec moves it a little."""
    return [round((float(frame.mean()) - 10) / 20) for frame in found]


def test_indices():
    assert frame_indices(16, 8).tolist() == [0, 2, 4, 6, 8, 10, 12, 14]
    assert frame_indices(10, 4).tolist() == [0, 2, 5, 7]
    assert frame_indices(3, 6).tolist() == [0, 0, 1, 1, 2, 2]
    for total, count in ((300, 8), (15, 8), (16, 8), (8, 8), (5, 8), (250, 16)):
        theirs = np.arange(0, total, total / count, dtype=int)  # as the original asks numpy for them
        assert frame_indices(total, count, faithful=True).tolist() == theirs.tolist()
    with pytest.raises(ConfigError, match="0 of a clip of 5"):
        frame_indices(5, 0)


def test_a_frame_that_is_no_file(tmp_path):
    (tmp_path / "0.png").mkdir()
    with pytest.raises(ImageError, match=r"0\.png: Is a directory") as wrong:
        frames(tmp_path, 2, 8)
    assert wrong.value.reason == "unreadable"


def test_folder_in_natural_order(tmp_path):
    folder = folder_of(tmp_path / "clip", 12)
    (folder / "notes.txt").write_text("no frame")
    found = frames(folder, 4, 8)
    assert (found.shape, found.dtype) == ((4, 8, 8, 3), np.uint8)
    assert shades(found) == [0, 3, 6, 9]  # frame10 and frame11 come last, not after frame1
    assert shades(frames(folder, 5, 8, faithful=True)) == [0, 2, 4, 6, 8]
    assert shades(frames(folder, 5, 8)) == [0, 2, 4, 7, 9]


def test_short_folder_repeats_frames(tmp_path):
    folder = folder_of(tmp_path / "clip", 2)
    assert shades(frames(folder, 4, 8)) == [0, 0, 1, 1]
    assert shades(frames(folder, 4, 8, faithful=True)) == [0, 0, 0, 0]


def test_folders_that_are_no_clip(tmp_path):
    with pytest.raises(ImageError, match="no such clip") as caught:
        frames(tmp_path / "absent.mp4")
    assert caught.value.reason == "missing_file"
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImageError, match="no frame images") as caught:
        frames(tmp_path / "empty")
    assert caught.value.reason == "empty"
    folder = folder_of(tmp_path / "clip", 3)
    (folder / "frame1.png").write_bytes((folder / "frame1.png").read_bytes()[:60])
    with pytest.raises(ImageError, match=r"frame1\.png") as caught:
        frames(folder, 3, 8)
    assert caught.value.reason == "truncated"


def test_file(tmp_path):
    found = frames(clip_of(tmp_path / "clip.mp4", 12), 4, 32)
    assert (found.shape, found.dtype) == ((4, 32, 32, 3), np.uint8)
    assert shades(found) == [0, 3, 6, 9]


def test_file_and_folder_give_the_same_frames(tmp_path):
    file, folder = clip_of(tmp_path / "clip.mp4", 10), folder_of(tmp_path / "clip", 10)
    for count in (3, 8, 16):
        of_file, of_folder = frames(file, count, 16).astype(int), frames(folder, count, 16).astype(int)
        assert abs(of_file - of_folder).max() <= 8


def test_files_that_are_no_clip(tmp_path):
    whole = clip_of(tmp_path / "clip.mp4", 12).read_bytes()
    for name, data in (("cut.mp4", whole[: len(whole) // 2]), ("text.mp4", b"not found" * 50), ("none.mp4", b"")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ImageError, match=name) as caught:
            frames(tmp_path / name, 4, 32)
        assert caught.value.reason in ("unreadable", "empty")


def test_a_file_cut_behind_its_header_is_not_taken_for_a_short_clip(tmp_path):
    whole = clip_of(tmp_path / "clip.mp4", 12, movflags="faststart").read_bytes()
    header = whole.index(b"mdat") + 4
    for left in (header, (header + len(whole)) // 2):  # none of its frames, some of them
        (tmp_path / "cut.mp4").write_bytes(whole[:left])
        with pytest.raises(ImageError, match=r"frames of the 12 that its header tells") as caught:
            frames(tmp_path / "cut.mp4", 4, 32)
        assert caught.value.reason == "truncated"


def test_sound_alone_is_no_clip(tmp_path):
    av = pytest.importorskip("av", reason="video files need the extra `video`")
    path = tmp_path / "sound.wav"
    with av.open(str(path), "w") as clip:
        stream = clip.add_stream("pcm_s16le", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        sound.rate = 8000
        clip.mux(stream.encode(sound))
        clip.mux(stream.encode())
    with pytest.raises(ImageError, match="no video frame") as caught:
        frames(path)
    assert caught.value.reason == "empty"


def test_without_the_extra_files_are_refused_and_folders_work(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    (tmp_path / "clip.mp4").write_bytes(b"x")
    with pytest.raises(DataError, match=r"pip install capfilt\[video\]"):
        frames(tmp_path / "clip.mp4")
    assert shades(frames(folder_of(tmp_path / "clip", 2), 2, 8)) == [0, 1]
