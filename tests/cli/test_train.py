"""`capfilt train`: recipes of the cycle and of tasks get what belongs to them, and nothing else."""

import shlex
from pathlib import Path

import pytest


def test_the_list(capfilt, below):
    assert capfilt("train", "--list") == (0, "demo       Scenes that are drawn.\nblip-task  One task.\n", "")
    code, _, err = capfilt("train")
    assert code == 2 and "--list" in err


@pytest.mark.parametrize(("pairs", "test"), [("--pairs", "--test"), ("--data", "--val")])
def test_the_cycle(capfilt, below, pairs, test):
    code, out, _ = capfilt("train", "demo", "--set", "steps=2", pairs, "p", "--human", "h", test, "t")
    assert (code, out) == (0, "runs/demo\n")
    assert below.asked == [("run", "demo", Path("runs/demo"), ["steps=2"], "p", "h", "t")]


def test_a_task(capfilt, below):
    words = shlex.split("blip-task --data a --data b --val v --images at --init run --out o --set x=1")
    assert capfilt("train", *words)[:2] == (0, "blip-task, 9 rows, 5 steps: not measured (no --val)\no\n")
    assert below.asked == [("tune", "blip-task", Path("o"), ["x=1"], ["a", "b"], ["v"], "at", "run")]
    below.results["val"] = {"overall": 0.91234, "rows": 380, "unread": {"empty": 1}}
    out = capfilt("train", "blip-task", "--data", "a")[1]
    assert out.splitlines()[0] == "blip-task, 9 rows, 5 steps: overall 0.9123, rows 380"
    assert below.asked[1] == ("tune", "blip-task", Path("runs/blip-task"), [], ["a"], [], None, "small")


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("demo --images at", "--images and --init belong to the recipes blip-task"),
        ("demo --init run", "--images and --init belong to the recipes blip-task"),
        ("demo --pairs a --pairs b", "--pairs is given 2 times; this recipe takes one"),
        ("blip-task --data a --human h", "blip-task learns from --data alone"),
    ],
)
def test_what_belongs_to_another_recipe(capfilt, below, words, why):
    code, _, err = capfilt("train", *words.split())
    assert code == 2 and why in err and not below.asked


def test_a_task_without_data_says_so(capfilt, tmp_path):
    code, _, err = capfilt("train", "blip-vqa", "--out", str(tmp_path))
    assert (code, err) == (2, "capfilt: blip-vqa: nothing to learn from; give --data, and --val to measure with\n")
