"""The rows of cleaning with tiny models and few pictures: both sides do the same work, and other work is found out."""

import dataclasses
from functools import partial
from pathlib import Path

import pytest

from capfilt.clean.config import CleanConfig
from capfilt.data.world import WorldConfig
from capfilt.errors import CheckFailed
from capfilt.inputs.images import normalize
from capfilt.inputs.tokenizer import TextTokenizer
from capfilt.models.blip import PRESETS, Blip
from capfilt.recipes import bench as package
from capfilt.recipes.bench import cleaning, measure, timing, work
from capfilt.recipes.bench.cleaning import CLEAN, clean_base
from capfilt.recipes.bench.other import Other
from capfilt.recipes.bench.peers import Shelf
from capfilt.recipes.bench.timing import Spare
from capfilt.recipes.bench.work import CannotRun, Row
from capfilt.weights import store

pytest.importorskip("transformers")
IMAGES = 10


@pytest.fixture(scope="module")
def shelf(tmp_path_factory) -> Shelf:
    return Shelf(tmp_path_factory.mktemp("bench"), "tiny")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """No second tries, small pictures that no processes decode, and every precision however slow it is here."""
    monkeypatch.setattr(timing, "busy_s", lambda: 0.0)
    monkeypatch.setattr(work, "INSTRUCTIONS", {})
    monkeypatch.setattr(cleaning, "PHOTO", (80, 60))
    monkeypatch.setattr(cleaning, "CleanConfig", partial(CleanConfig, workers=0))


def one_round(row: Row, shelf: Shelf) -> dict:
    few = dataclasses.replace(row, build=partial(row.build, images=IMAGES))
    return measure("row", few, shelf, 1, Spare(0))


def test_rows_and_goals():
    goals = {"clean-default": 5.0, "clean-fp32": 2.2, "clean-bf16": 2.2, "clean-int8": 8.0, "clean-demo": 0.85}
    assert {name: row.goal for name, row in CLEAN.items()} == goals and package.ALL.keys() >= goals.keys()


@pytest.mark.parametrize("name", [name for name in CLEAN if name != "clean-demo"])
def test_rows_of_base_models(name: str, shelf: Shelf):
    row = one_round(CLEAN[name], shelf)
    assert row["images"] == IMAGES and row["images_per_s"] > 0 and "straightforward script" in row["peer"]
    assert row["difference"] <= (1e-3 if name == "clean-fp32" else 0.3)
    assert not list(shelf.folder.glob("tmp*")), "runs are removed"


def test_the_row_of_the_demo(shelf: Shelf, tmp_path: Path, monkeypatch):
    words = TextTokenizer.train(["a large red cube beside a small blue ball"], 64)
    for name, roles in (("captioner", ("speak",)), ("filter", ("read", "look"))):
        config = dataclasses.replace(PRESETS["tiny"], roles=roles, queue=0)
        store.save(Blip(config.with_words(words)), words, tmp_path / name)
        monkeypatch.setattr(cleaning.own, name, lambda name=name: tmp_path / name)
    row = one_round(CLEAN["clean-demo"], shelf)
    assert row["peer"] == "its models alone" and row["difference"] <= 1e-3 and 0 < row["ratio"] < 1.5


def test_other_pictures_are_seen(shelf: Shelf, monkeypatch):
    monkeypatch.setattr(cleaning, "normalize", lambda pixels: normalize(pixels[::-1]))
    with pytest.raises(CheckFailed, match="probability differs"):
        one_round(CLEAN["clean-fp32"], shelf)


def test_another_length_is_seen(shelf: Shelf, monkeypatch):
    monkeypatch.setattr(cleaning, "LONG", dataclasses.replace(cleaning.LONG, max_length=12, min_length=12))
    with pytest.raises(CheckFailed, match=r"captions of .* words; both sides must write 20"):
        one_round(CLEAN["clean-fp32"], shelf)


def test_the_peer_works_in_a_process_of_its_own(shelf: Shelf):
    other = Other(shelf.folder, shelf.size)
    try:
        other.build("clean-fp32")
        texts, fits = other.result(next(iter(clean_base(shelf, "fp32").peers)))
        assert len(texts) == len(fits) == 24
    finally:
        other.close()


def test_a_machine_that_would_emulate_a_precision(shelf: Shelf, monkeypatch):
    monkeypatch.setattr(work, "INSTRUCTIONS", {"int8": ("amx_int9",)})
    with pytest.raises(CannotRun, match="no int8 instructions"):
        CLEAN["clean-int8"].build(shelf)


def test_pictures_are_drawn_once(tmp_path: Path):
    world = WorldConfig(level="demo", px=48)
    first = cleaning.drawn(tmp_path, ["a", "b"], world)
    before = [file.stat().st_mtime_ns for file in first]
    assert cleaning.drawn(tmp_path, ["a", "b"], world) == first
    assert [file.stat().st_mtime_ns for file in first] == before and first[0].suffix == ".png"
