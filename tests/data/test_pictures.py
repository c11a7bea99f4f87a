"""Named files become one array, once, of pictures or of clips; what cannot be read is said by name."""

import numpy as np
import pytest
from PIL import Image

from capfilt.data.decoders import Reading
from capfilt.data.pictures import open_album, open_clips
from capfilt.errors import ConfigError, DataError
from capfilt.inputs.images import decode, to_pixels


@pytest.fixture
def files(tmp_path):
    random = np.random.default_rng(0)
    names = []
    for i in range(3):
        Image.fromarray(random.integers(0, 256, (20 + i, 30, 3), np.uint8)).save(tmp_path / f"{i}.png")
        names.append(str(tmp_path / f"{i}.png"))
    (tmp_path / "cut.png").write_bytes((tmp_path / "1.png").read_bytes()[:200])
    (tmp_path / "nothing.png").touch()
    return [names[0], str(tmp_path / "cut.png"), names[1], str(tmp_path / "gone.png"), names[0], names[2]]


def test_pictures_go_by_their_files_names(files, tmp_path):
    album = open_album(files, tmp_path / "out", 16, reading=Reading(2))
    assert sorted(album.place) == sorted({files[0], files[2], files[5]})
    for name, place in album.place.items():
        with open(name, "rb") as handle:
            np.testing.assert_array_equal(album.pictures[place], to_pixels(decode(handle.read()), 16))
    assert album.failed[files[3]] == "missing_file: no such file"
    assert album.failed[files[1]].startswith("truncated: ")
    assert len(album.failed) == 2


def test_what_is_no_file_costs_one_row(files, tmp_path):
    odd = [str(tmp_path), "a\0b.png", "x" * 300]
    album = open_album([*odd, files[0]], tmp_path / "out", 8, reading=Reading(1))
    assert list(album.place) == files[:1]
    assert [album.failed[name].partition(":")[0] for name in odd] == ["unreadable"] * 3


def test_a_second_call_only_maps(files, tmp_path, monkeypatch):
    first = open_album(files, tmp_path / "out", 16, reading=Reading(1))
    monkeypatch.setattr("capfilt.data.pictures.Decoders", None)
    again = open_album(files, tmp_path / "out", 16)
    assert isinstance(again.pictures, np.memmap)
    assert (again.place, again.failed) == (first.place, first.failed)
    np.testing.assert_array_equal(again.pictures, first.pictures)
    for names, px in ((files[:3], 16), (files, 8)):
        with pytest.raises(ConfigError, match="pictures of other files"):
            open_album(names, tmp_path / "out", px)


def test_nothing_to_see_is_one_line(tmp_path):
    with pytest.raises(DataError, match=r"none of 1 files can be read; the first, .*gone.png: missing_file"):
        open_album([str(tmp_path / "gone.png")], tmp_path / "out", 8, reading=Reading(1))
    assert not list((tmp_path / "out").iterdir())


def test_clips_of_frame_folders(files, tmp_path, monkeypatch):
    for name, shades in (("long", (0, 50, 100, 150)), ("short", (200,))):
        (tmp_path / name).mkdir()
        for i, shade in enumerate(shades):
            Image.new("RGB", (20, 10), (shade,) * 3).save(tmp_path / name / f"{i}.png")
    (tmp_path / "bare").mkdir()
    names = [str(tmp_path / name) for name in ("bare", "long", "gone", "short", "long")]
    album = open_clips(names, tmp_path / "out", 8, 2)
    assert album.pictures.shape == (4, 2, 8, 8, 3) and isinstance(album.pictures, np.memmap)
    shown = {name: album.pictures[place][:, 0, 0, 0].tolist() for name, place in album.place.items()}
    assert shown == {names[1]: [0, 100], names[3]: [200, 200]}
    assert [why.partition(":")[0] for why in album.failed.values()] == ["empty", "missing_file"]
    monkeypatch.setattr("capfilt.data.pictures.frames", None)
    assert open_clips(names, tmp_path / "out", 8, 2).place == album.place
    with pytest.raises(ConfigError, match="pictures of other files"):
        open_clips(names, tmp_path / "out", 8, 3)


def test_pictures_read_otherwise_are_other_pictures(files, tmp_path):
    open_album(files, tmp_path / "out", 8, Reading(1))
    with pytest.raises(ConfigError, match="pictures of other files"):
        open_album(files, tmp_path / "out", 8, Reading(1, scaled=True))
