"""Named files become one array, once; what cannot be read is said by name."""

import numpy as np
import pytest
from PIL import Image

from capfilt.data.pictures import open_album
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
    album = open_album(files, tmp_path / "out", 16, workers=2)
    assert sorted(album.place) == sorted({files[0], files[2], files[5]})
    for name, place in album.place.items():
        with open(name, "rb") as handle:
            np.testing.assert_array_equal(album.pictures[place], to_pixels(decode(handle.read()), 16))
    assert album.failed[files[3]] == "missing_file: no such file"
    assert album.failed[files[1]].startswith("truncated: ")
    assert len(album.failed) == 2


def test_a_second_call_only_maps(files, tmp_path, monkeypatch):
    first = open_album(files, tmp_path / "out", 16, workers=1)
    monkeypatch.setattr("capfilt.data.pictures.Decoders", None)
    again = open_album(files, tmp_path / "out", 16)
    assert isinstance(again.pictures, np.memmap)
    assert (again.place, again.failed) == (first.place, first.failed)
    np.testing.assert_array_equal(again.pictures, first.pictures)
    for names, px in ((files[:3], 16), (files, 8)):
        with pytest.raises(ConfigError, match="pictures of other files"):
            open_album(names, tmp_path / "out", px)


def test_nothing_to_see_is_one_line(tmp_path):
    with pytest.raises(DataError, match=r"none of 1 images can be read; the first, .*gone.png: missing_file"):
        open_album([str(tmp_path / "gone.png")], tmp_path / "out", 8, workers=1)
    assert not (tmp_path / "out" / "album.json").exists()
