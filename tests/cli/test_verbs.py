"""Each verb hands its flags down as they were given and prints what came back."""

import importlib
import inspect
import json
import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest

from capfilt.cli.bootstrap import VARIANT, Arm, default_out


def line(name, worst, status, detail=""):
    return SimpleNamespace(name=name, worst=worst, status=status, detail=detail)


def test_bootstrap_without_anything_is_the_demo(capfilt, below):
    code, out, _ = capfilt("bootstrap")
    (_, config, folder, variants) = below.asked[0]
    assert code == 0 and folder == Path("runs/demo")
    assert (config.pairs, config.seed, config.steps) == (None, 0, 10)
    assert variants == ("noisy", "bootstrapped")
    assert out == "[table of result]\nruns/demo/report.html\n"


def test_bootstrap_hands_everything_down(capfilt, below):
    words = shlex.split("--pairs web.jsonl --human h --test t --seed 3 --set steps=7 --ablate none --ablate filter")
    code, _, err = capfilt("bootstrap", *words)
    assert code == 0, err
    (_, config, folder, variants) = below.asked[0]
    assert folder == Path("runs/web")
    assert variants == ("noisy", "bootstrapped", "filter")
    assert vars(config) == {
        "pairs": "web.jsonl",
        "human": "h",
        "test": "t",
        "seed": 3,
        "steps": 7,
    }


@pytest.mark.parametrize("words", [["--set", "stepz=1"], ["--set", "steps"], ["--recipe", "nosuch"], ["--ablate", "x"]])
def test_bootstrap_refuses_what_does_not_exist(capfilt, below, words):
    code, _, err = capfilt("bootstrap", *words)
    assert code == 2 and err.count("\n") == 1
    assert not below.asked


def test_default_out():
    assert default_out("/data/web.tar") == Path("runs/web")
    assert default_out(".") == Path("runs") / Path.cwd().name


def test_eval_as_a_table_and_as_json(capfilt, below):
    code, out, _ = capfilt("eval", "runs/x")
    assert code == 0 and below.asked == [("evaluate_run", Path("runs/x"), None, [])]
    rows = [row.split() for row in out.splitlines() if row.strip()]
    assert ["retrieval.r1", "0.5"] in rows and ["images", "1000"] in rows
    code, out, _ = capfilt("eval", "runs/x", "--pairs", "p", "--extra", "meteor", "--json")
    assert below.asked[1] == ("evaluate_run", Path("runs/x"), "p", ["meteor"])
    assert json.loads(out) == below.scores


def test_eval_of_a_task(capfilt, monkeypatch, tmp_path):
    measuring = importlib.import_module("capfilt.recipes.measuring")
    numbers = {"cider": 0.5, "rows": 9, "in-domain": {"cider": 0.25, "rows": 4}, "kept_back": 2}
    found = {"numbers": numbers, "unread": {"empty": 3}, "predictions": "captions.json"}
    asked = []
    monkeypatch.setattr(measuring, "measure", lambda *given: asked.append(given) or found)
    flags = ["--images", "i", "--candidates", "c", "--extra", "spice", "--set", "split=val", "--out", str(tmp_path)]
    code, out, _ = capfilt("eval", "own/model", "--task", "video-qa", "--data", "a", "--data", "b", *flags)
    model, task, files, folder, sets = asked[0]
    assert (code, model, task, folder) == (0, "own/model", "video-qa", tmp_path)
    assert (files.data, files.images) == (("a", "b"), "i")
    assert sets == ["split=val", 'kind.extras=["spice"]', 'kind.candidates="c"']
    rows = [row.split() for row in out.splitlines() if row.strip()]
    assert rows[0] == ["measure", "overall", "in-domain"] and ["cider", "0.5", "0.25"] in rows
    tail = ["left out: 3 empty", "the truth of 2 rows is kept back: predictions only", str(tmp_path / "captions.json")]
    assert out.splitlines()[-3:] == tail
    assert json.loads(capfilt("eval", "m", "--task", "vqa", "--data", "a", "--json")[1]) == found


def test_eval_mistakes_are_one_line(capfilt, below):
    code, _, err = capfilt("eval", "runs/x", "--set", "split=val")
    assert code == 2 and "--set and --out belong to --task" in err
    code, _, err = capfilt("eval", "runs/x", "--task", "talk")
    assert code == 2 and "video-retrieval" in err
    code, _, err = capfilt("eval", "runs/x", "--pairs", "p", "--data", "q")
    assert code == 2 and "--pairs is given 2 times" in err
    assert below.asked == []


def test_eval_without_a_model_or_rows(capfilt, tmp_path):
    code, _, err = capfilt("eval", str(tmp_path / "gone"), "--task", "caption", "--data", "x.json")
    assert code == 4 and err.count("\n") == 1 and "no such file or folder" in err
    code, _, err = capfilt("eval", str(tmp_path), "--task", "caption")
    assert code == 2 and "nothing to measure with; give --data" in err


def test_eval_has_a_column_a_model(capfilt, below):
    below.scores = {"before": {"r1": 0.25, "extra": 3}, "after": {"r1": 0.5, "extra": None}}
    rows = [row.split() for row in capfilt("eval", "runs/x")[1].splitlines() if row.strip()]
    assert rows == [["measure", "before", "after"], ["r1", "0.25", "0.5"], ["extra", "3", "-"]]


def test_report_bench_study(capfilt, below):
    assert capfilt("report", "runs/x")[:2] == (0, "runs/x/report.html\n")
    assert capfilt("bench", "--rows", "a b", "--rows", "c", "--rounds", "1")[:2] == (0, "bench/results.json\n")
    assert capfilt("study", "--seeds", "2", "--out", "s")[0] == 0
    timed = ("bench", ["a", "b", "c"], False, 1, Path("bench/results.json"))
    assert below.asked[1:] == [timed, ("study", 2, Path("s"))]
    assert capfilt("study", "--seeds", "0")[0] == 2


def test_golden_passes(capfilt, below):
    below.lines = [line("clip/vit", 3e-6, "pass"), line("coca/base", None, "not built yet")]
    code, out, err = capfilt("golden", "g")
    assert (code, err) == (0, "")
    assert "clip/vit" in out and "3.0e-06" in out and out.endswith("1 not built yet, 1 pass\n")
    assert below.asked == [("check", Path("g"), None)]
    assert capfilt("golden", "g", "--vocab", "v.txt")[0] == 0
    assert below.asked[1:] == [("check", Path("g"), Path("v.txt"))]


def test_golden_fails_on_one_case_or_none(capfilt, below):
    code, _, err = capfilt("golden", "g")
    assert code == 1 and "no case under g" in err
    below.lines = [line("clip/vit", 3e-2, "fail", "logits: 0.03 > 0.0001"), line("clip/bpe", 0.0, "pass")]
    code, out, err = capfilt("golden", "g")
    assert code == 1 and "logits: 0.03" in out
    assert err == "capfilt: golden: 1 fail, 1 pass\n"


CALLED = {
    "capfilt.bootstrap.rounds:bootstrap": ("config", "out", ("noisy",), "ranks"),
    "capfilt.bootstrap.measure:evaluate_run": ("run", None, []),
    "capfilt.recipes.measuring:measure": ("model", "task", "files", "out", []),
    "capfilt.bootstrap.rounds:rewrite_report": ("run",),
    "capfilt.recipes:run": ("name", "out", [], "pairs", "human", "test"),
    "capfilt.recipes:tune": ("name", "out", [], ["data"], ["val"], "images", "init"),
    "capfilt.recipes.bench:bench": (["row"], False, 1, "out"),
    "capfilt.recipes.study:study": (5, "out"),
    "capfilt.report.page:terminal_table": ("report",),
    "capfilt.evaluate.golden:check": ("folder", "vocab"),
}


@pytest.mark.parametrize("place", CALLED)
def test_what_the_verbs_call_is_there(place):
    """The stand-ins agree with the real rooms."""
    module, _, name = place.partition(":")
    inspect.signature(getattr(importlib.import_module(module), name)).bind(*CALLED[place])


def test_every_variant_has_its_arm():
    variants = importlib.import_module("capfilt.bootstrap.config").VARIANTS
    assert set(VARIANT) == set(Arm) and sorted(VARIANT.values()) == sorted(variants)


@pytest.mark.parametrize("recipe", ["demo", "flickr", "paper"])
def test_bootstrap_recipes_take_what_the_verb_gives(recipe):
    recipes = importlib.import_module("capfilt.recipes")
    config = recipes.RECIPES[recipe](pairs=None, human=None, test=None, seed=3)
    assert config.seed == 3
    inspect.signature(recipes.run).bind(recipe, "out", [], pairs=None)
