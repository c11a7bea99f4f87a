"""A run's folder → its report: which gains have an interval and how wide, what is said of the run, what it cost."""

from pathlib import Path

import numpy as np
import pytest

from capfilt.bootstrap.config import VARIANTS
from capfilt.bootstrap.tell import tell
from capfilt.evaluate.intervals import gain_interval
from capfilt.files import write_json, write_jsonl
from capfilt.pair import Row
from capfilt.report.words import MODEL_WORDS

OWNER = [image for image in range(8) for _ in range(5)]  # five texts an image, which one model gets all wrong or right
BEFORE = [float(image < 2) for image in OWNER]
AFTER = [float(image < 6) for image in OWNER]
SUMMARY = {"ir1": 0.25, "bleu4": 0.4, "rouge_l": 0.5}


def evaluation(hits: list[float], owner: dict) -> dict:
    each = {"ir1": hits, "bleu4": hits[::5], "rouge_l": hits[::5]}
    return {"summary": SUMMARY, "per_query": each, "captions": [], **owner}


def finished(folder: Path, owner: dict | None = None, **config) -> Path:
    """What `tell` reads, of a run that never was."""
    settings = {"world": {"level": "demo"}, "sources": {"pairs": None}, "filter_rounds": 1, "captioner_learns": "human"}
    write_json(folder / "config.json", {**settings, "tied": False, **config})
    counts = {"in": 4, "kept": 4, "replaced": 0, "dropped": 0, "failed": 0}
    stages = {name: {"seconds": 10.0} for name in ("models/noisy", "models/human", "evaluated/human", "clean/web")}
    unread = {"human": {"not_an_image": 1}}
    write_json(
        folder / "stages.json",
        {
            "data": {"seconds": 1.0, "human": 9, "unread": unread},
            **stages,
            "ledger": {"threshold": 0.5, "counts": counts},
        },
    )
    scores = {"right": 0.9, "better": 0.7, "wrong": 0.8, "worse": 0.1}
    rows = [Row(key, "kept", "", key, score_web=score) for key, score in scores.items()]
    write_jsonl(folder / "ledger.jsonl", [vars(row) for row in rows])
    write_jsonl(folder / "models/noisy/metrics.jsonl", [{"step": 1, "lm": 2.0}, {"step": 2, "lm": 1.0}])
    web = {key: ("clean", True) if i < 2 else ("swapped", False) for i, key in enumerate(scores)}
    write_json(folder / "truth.json", {"web": web, "web_facts": {}, "synthetic_facts": {}})
    write_json(folder / "gallery.json", [])
    np.save(folder / "gallery.npy", np.zeros((0, 1, 1, 3), np.uint8))
    told = {"text_image": OWNER} if owner is None else owner
    for name, hits in (("noisy", BEFORE), ("bootstrapped", AFTER), ("human", BEFORE)):
        write_json(folder / f"evaluated/{name}.json", evaluation(hits, told))
    return folder


def test_texts_of_one_image_are_drawn_together(tmp_path):
    told = tell(finished(tmp_path / "new")).metric("ir1").gain
    assert told == gain_interval(BEFORE, AFTER, groups=OWNER)
    older = tell(finished(tmp_path / "old", owner={})).metric("ir1").gain
    assert older == gain_interval(BEFORE, AFTER) and older[1] > told[1], "apart they would look surer than they are"


def test_what_is_no_mean_over_images_has_no_gain(tmp_path):
    report = tell(finished(tmp_path))
    assert report.metric("bleu4").gain is None and report.metric("rouge_l").gain is not None


def test_the_filter_has_its_interval_and_other_models_their_sentence(tmp_path):
    report = tell(finished(tmp_path))
    value, low, high = report.filter.auc_intervals["auc_swap"]
    assert value == report.filter.auc_swap == 0.75 and low < value < high
    assert list(report.models) == ["noisy", "bootstrapped", "human"] and "human pairs" in report.models["human"]
    assert set(MODEL_WORDS) == set(VARIANTS), "every model has a name for readers"
    assert report.notes == ["1 row of the human pairs could not be used: the file is not an image (1)."]


def test_seconds_leave_out_models_beside_the_two(tmp_path):
    report = tell(finished(tmp_path))
    assert report.seconds == 21.0 and len(report.stages) == 5


def test_losses_carry_the_names_of_their_stages(tmp_path):
    assert tell(finished(tmp_path)).losses == {"models/noisy/lm": [(1, 2.0), (2, 1.0)]}


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({}, "became captioner and filter."),
        ({"filter_rounds": 2}, "The filter also learned from web texts"),
        ({"filter_rounds": 2, "captioner_learns": "kept"}, "The filter and the captioner also learned from web texts"),
        ({"tied": True}, "One copy of the first model"),
    ],
)
def test_how_captioner_and_filter_were_made(tmp_path, config, words):
    report = tell(finished(tmp_path, **config))
    assert report.drawn and words in report.cleaners and ("also" in words) == ("also" in report.cleaners)
    assert not tell(finished(tmp_path, sources={"pairs": "web.jsonl"})).drawn
