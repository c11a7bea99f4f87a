"""Published answers: what is the same passes, what differs in a word, an id or a probability does not."""

import dataclasses
import io

import numpy as np
import pytest
import torch
from PIL import Image

from capfilt.errors import DataError
from capfilt.inputs.tokenizer import TextTokenizer
from capfilt.models.blip import PRESETS, Blip
from capfilt.predict import verify as module
from capfilt.predict.use import Model
from capfilt.weights.catalog import CATALOG, Entry, Expected

WORDS = "a woman sitting on the beach with her dog"


@pytest.fixture(scope="module")
def model() -> Model:
    tokenizer = TextTokenizer.train([WORDS], 60)
    built = Blip(dataclasses.replace(PRESETS["tiny"].with_words(tokenizer), queue=0))
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for p in built.parameters():
            p.normal_(0, 0.25, generator=generator)
    return Model(built.eval(), tokenizer)


@pytest.fixture(scope="module")
def picture() -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(out, "PNG")
    return out.getvalue()


def checked(model: Model, picture: bytes, *expected: Expected) -> list[bool]:
    entry = Entry("a.pth", "official", "pretrain", "base", 32, expected=expected)
    return [found.right for found in module.verify(model, entry, picture)]


def test_same_answers_are_right_and_others_are_not(model: Model, picture: bytes):
    said = model.caption(picture, beams=1, min_length=0, prompt="a")
    ids = (model.tokenizer.dec_id, *model.tokenizer.encode(["a"])[0][1:-1].tolist(), *said.tokens)
    fits = model.match(picture, WORDS)
    right = Expected("caption", "a", said.text, ids)
    match = Expected("match", WORDS, itm=fits.probability, itc=fits.cosine)
    assert checked(model, picture, right, match) == [True, True]
    wrong = [
        dataclasses.replace(right, answer="a dog"),
        dataclasses.replace(right, ids=ids[:-1]),
        dataclasses.replace(match, itm=fits.probability + 0.02),
        dataclasses.replace(match, itc=fits.cosine - 0.02),
    ]
    assert checked(model, picture, *wrong) == [False] * 4


def test_a_broken_picture_is_not_right(model: Model):
    assert checked(model, b"", Expected("caption", "", "")) == [False]


def test_the_published_answers_are_complete():
    tasks = {"caption": {"caption", "beams"}, "pretrain": {"caption", "beams", "match"}, "match": {"match"}}
    for entry in CATALOG:
        for expected in entry.expected:
            assert expected.task in tasks.get(entry.kind, {"ask"})
            assert expected.answer or (expected.itm is not None and expected.itc is not None)


def test_the_picture_comes_from_a_file_or_says_why_not(tmp_path, monkeypatch):
    (tmp_path / "x.jpg").write_bytes(b"picture")
    assert module.demo_picture(tmp_path / "x.jpg") == b"picture"
    with pytest.raises(DataError, match=r"gone\.jpg: No such file"):
        module.demo_picture(tmp_path / "gone.jpg")
    monkeypatch.setattr(module, "DEMO", "https://localhost:9/demo.jpg")
    with pytest.raises(DataError, match="give it with --image FILE"):
        module.demo_picture()
