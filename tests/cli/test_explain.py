"""`capfilt explain` on a small model: the picture it writes, and what a user can get wrong."""

import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from capfilt.inputs.tokenizer import TextTokenizer
from capfilt.models.blip import PRESETS, Blip
from capfilt.weights import store


@pytest.fixture(scope="module")
def given(tmp_path_factory) -> tuple[str, str]:
    """A model that can do everything, and a photograph."""
    folder = tmp_path_factory.mktemp("explain")
    tokenizer = TextTokenizer.train(["a red cube beside a blue ball"], 64)
    config = dataclasses.replace(PRESETS["tiny"].with_words(tokenizer), queue=0)
    store.save(Blip(config).init_weights(), tokenizer, folder / "model")
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "photo.png")
    return str(folder / "model"), str(folder / "photo.png")


@pytest.mark.parametrize("words", [("a red cube",), ("a red cube", "--of", "caption", "--layer", "1"), ()])
def test_a_picture_is_written(capfilt, given, tmp_path: Path, words):
    model, photo = given
    out = tmp_path / "heat.png"
    code, said, _ = capfilt("explain", photo, *words, "--model", model, "-o", str(out))
    assert code == 0 and said.splitlines()[-1] == str(out)
    assert len(said.splitlines()) == (1 if words else 2)  # the text that the model wrote is said
    drawn = Image.open(io.BytesIO(out.read_bytes()))
    assert drawn.format == "PNG" and drawn.width > 400


def test_words_beyond_the_model_are_told(capfilt, given, tmp_path: Path):
    model, photo = given
    text = "cube " * 40
    _, said, _ = capfilt("explain", photo, text, "--model", model, "-o", str(tmp_path / "heat.png"))
    assert "the last 10 words" in said


def test_what_can_be_wrong(capfilt, given):
    model, photo = given
    for words, wanted, number in (
        ((photo + "x", "a cube", "--model", model), "No such file", 3),
        ((photo, "...", "--model", model), "holds no word", 3),
        ((photo, "a cube", "--model", model, "--layer", "7"), "layer=7", 2),
    ):
        code, _, err = capfilt("explain", *words)
        assert code == number and wanted in err and err.count("\n") == 1
