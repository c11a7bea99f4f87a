"""The measurement of reading pictures runs, compares two ways that differ, and counts every picture."""

import io

import numpy as np
import pytest
from PIL import Image

from capfilt.errors import DataError
from capfilt.recipes import input_speed as recipe


def test_a_folder_of_jpegs_is_measured(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(recipe, "SIDES_PX", (16, 32))
    monkeypatch.setattr(recipe, "PROCESSES", (0, 1))
    monkeypatch.setattr(recipe, "AT_LEAST", 6)
    for i in range(3):
        noise = np.random.default_rng(i).integers(0, 256, (64, 96, 3), np.uint8)
        Image.fromarray(noise).save(tmp_path / f"{i}.jpg", quality=90)
    found = recipe.input_speed(tmp_path, images=2, rounds=1)
    assert [row["px"] for row in found["scaled"]] == [16, 32]
    for row in found["scaled"]:
        assert 0 < row["mean"] < row["largest"] and row["exact_ms"] > 0 < row["scaled_ms"]
    assert [(row["processes"], row["scaled"]) for row in found["throughput"]] == [
        (0, False),
        (1, False),
        (0, True),
        (1, True),
    ]
    assert all(row["per_s"] > 0 for row in found["throughput"])
    assert len(capsys.readouterr().out.splitlines()) == 2 + 2 + 4


def test_scenes_are_drawn_as_large_jpegs():
    picture = Image.open(io.BytesIO(recipe._drawn(1)[0]))
    assert (picture.format, picture.size) == ("JPEG", recipe.SIZE)


def test_a_folder_without_any(tmp_path):
    with pytest.raises(DataError, match="no JPEG in this folder"):
        recipe.input_speed(tmp_path)
