"""The two runs from nothing: what is held back is never learned from, and what they write is what was measured."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from capfilt.data.annotated.simple import read_asked
from capfilt.data.annotations import Asked
from capfilt.errors import DataError
from capfilt.files import read_json
from capfilt.inputs.tokenizer import TextTokenizer
from capfilt.models.blip import PRESETS, Blip
from capfilt.recipes import scratch
from capfilt.recipes.scratch import EASY_VQA, FLICKR_OBJECTIVE, FLICKR_TRAIN, by_image, easy_vqa, flickr_retrieval, main
from capfilt.train.loop import TrainConfig
from capfilt.weights import store

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 220), "white": (240, 240, 240)}


def asked(image: str) -> Asked:
    return Asked(image, "what?", ("x",), (1.0,), ("x",), 0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """40 pictures of one colour in many shades, two questions about each, and a caption of each."""
    at = tmp_path_factory.mktemp("scratch")
    questions, pairs = [], []
    for i in range(40):
        name = list(COLOURS)[i % 4]
        shade = np.clip(np.array(COLOURS[name]) + i // 4, 0, 255).astype(np.uint8)
        Image.fromarray(np.broadcast_to(shade, (64, 64, 3))).save(at / f"{i}.png")
        questions += [
            {"image": f"{i}.png", "question": f"what {word} is it?", "answer": name} for word in ("colour", "hue")
        ]
        pairs.append({"image": f"{i}.png", "caption": f"all of it is {name}"})
    for file, rows in (("asked.jsonl", questions), ("train.jsonl", pairs[:32]), ("val.jsonl", pairs[32:])):
        (at / file).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return at


def short(train: TrainConfig, steps: int) -> TrainConfig:
    return dataclasses.replace(train, steps=steps, batch=16)


def test_questions_are_held_back_by_image():
    rows = [asked(f"{i}.png") for i in range(20) for _ in range(3)]
    learned, held = by_image(rows, 0.1, seed=0)
    assert len(held) == 6 and len(learned) == 54
    assert not {a.image for a in learned} & {a.image for a in held}
    assert by_image(rows, 0.1, seed=0) == (learned, held)
    assert any(by_image(rows, 0.1, seed=s)[1] != held for s in (1, 2, 3))


def test_one_image_cannot_be_held_back():
    with pytest.raises(DataError, match=r"1 image in 2 rows"):
        by_image([asked("a.png")] * 2, 0.1, seed=0)


def test_easy_vqa_learns_and_measures_on_images_it_has_not_seen(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(scratch, "EASY_VQA", dataclasses.replace(EASY_VQA, train=short(EASY_VQA.train, 60)))
    results = easy_vqa(folder / "asked.jsonl", tmp_path)
    learned, held = (
        {a.image_id for a in read_asked(tmp_path / f"{n}.jsonl", folder)} for n in ("learned", "held_back")
    )
    assert len(learned) == 36 and len(held) == 4 and not learned & held
    assert (results["rows"], results["val"]["rows"]) == (72, 8)
    assert results["val"]["overall"] == 1.0
    assert results == read_json(tmp_path / "results.json")


def test_flickr_retrieval_tunes_what_it_is_given_and_measures_with_and_without_rerank(folder, tmp_path, monkeypatch):
    tokenizer = TextTokenizer.train([f"all of it is {name}" for name in COLOURS], 64)
    blip = Blip(PRESETS["tiny"].with_words(tokenizer)).init_weights()
    store.save(blip, tokenizer, tmp_path / "init")
    monkeypatch.setattr(scratch, "FLICKR_TRAIN", short(FLICKR_TRAIN, 2))
    results = flickr_retrieval(folder / "train.jsonl", folder / "val.jsonl", tmp_path / "init", tmp_path / "out")
    assert results["rows"] == 32 and {"mean", "itc_mean", "tr1", "itc_tr1"} <= set(results["val"])
    tuned, _ = store.load(tmp_path / "out")
    assert tuned.config.roles == ("read", "look")
    moved = (tuned.vit.positions - blip.vit.positions).abs().max()
    assert 0 < moved < 4 * FLICKR_TRAIN.schedule.rate  # two steps of AdamW from there


def test_most_negatives_are_drawn_evenly():
    assert FLICKR_OBJECTIVE.floor * FLICKR_TRAIN.batch > 10


@pytest.mark.parametrize(
    "arguments",
    [
        ["easy-vqa", "x", "--data", "a", "--val", "b"],
        ["flickr-retrieval", "x", "--data", "a", "--val", "b"],
        ["flickr-retrieval", "x", "--data", "a", "--init", "c"],
    ],
)
def test_the_command_says_what_a_task_takes(arguments, capsys):
    with pytest.raises(SystemExit):
        main(arguments)
    assert "--val and --init" in capsys.readouterr().err
