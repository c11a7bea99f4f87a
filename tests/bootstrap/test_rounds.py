"""The stages of a cycle: what each variant is trained on, what is noted, what a resumed cycle does not do again."""

import dataclasses
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from capfilt.bootstrap import rounds
from capfilt.bootstrap.config import Sources
from capfilt.bootstrap.measure import evaluate_run
from capfilt.bootstrap.rounds import Cycle
from capfilt.bootstrap.tell import is_told
from capfilt.clean.decide import Rule
from capfilt.config import to_dict
from capfilt.errors import ConfigError, DataError
from capfilt.evaluate.cleaning import filter_report
from capfilt.files import read_json, read_jsonl, write_json, write_jsonl
from capfilt.predict.decode import Decoding
from capfilt.recipes import smoke

SMOKE = dataclasses.replace(smoke(), web=20, test=4, human=10)


@pytest.fixture(scope="module")
def cycle(tmp_path_factory) -> Cycle:
    return Cycle(SMOKE, tmp_path_factory.mktemp("cycle"))


def texts(cycle: Cycle, variant) -> list[str]:
    """The web side of a variant's training set, sorted."""
    human = list(cycle.human.table().texts)
    found = list(cycle.table(variant).texts)
    assert found[: len(human)] == human
    return sorted(found[len(human) :])


def test_what_each_variant_learns_from(cycle):
    ledger = cycle.ledger
    assert len({row.decision for row in ledger}) > 1, "this seed should keep some and not others"
    web = sorted(row.text_web for row in ledger)
    synthetic = sorted(row.text_synthetic for row in ledger if row.text_synthetic)
    kept_web = sorted(row.text_web for row in ledger if row.keep_web)
    kept_synthetic = [row.text_synthetic for row in ledger if row.keep_synthetic and row.text_synthetic]
    assert texts(cycle, "noisy") == web
    assert texts(cycle, "filter") == kept_web
    assert texts(cycle, "captioner") == sorted(web + synthetic)
    assert texts(cycle, "bootstrapped") == sorted(kept_web + kept_synthetic)
    assert texts(cycle, "human") == []


def test_the_controls(cycle):
    human, web, best = len(cycle.human), len(cycle.web), len(cycle.table("bootstrapped"))
    assert len(cycle.table("repeated")) == best
    share = cycle.table("share")
    assert (len(share) - web) / len(share) == pytest.approx(human / best, abs=0.02)


@pytest.mark.parametrize("variant", ["filter", "captioner"])
def test_a_variant_is_no_cleaner_of_the_same_name(cycle, variant):
    """The arm `filter` is a model trained from scratch on filtered texts, not the model that filters."""
    assert cycle.model(variant) is not getattr(cycle, variant)
    assert cycle.model(variant).config.roles == cycle.model("noisy").config.roles
    assert (cycle.out / f"models/{variant}/done.json").is_file()


def test_a_drawn_world_knows_its_truth(cycle):
    assert all(row.kind for row in cycle.ledger)
    rows = read_jsonl(cycle.out / "ledger.jsonl")
    assert [row["key"] for row in rows] == list(cycle.web.keys)
    counts = read_json(cycle.out / "stages.json")["ledger"]["counts"]
    assert counts["in"] == 20 == sum(counts.values()) - counts["in"]


def test_noisy_pairs_of_known_truth_judge_the_filter(cycle, tmp_path):
    """The run's own web pairs, read back from files: the filter must say of them what stands in the ledger."""
    rows = cycle.ledger
    for key, pixels in zip(cycle.web.keys, cycle.web.pictures, strict=True):
        Image.fromarray(pixels).save(tmp_path / f"{key}.png")
    write_jsonl(tmp_path / "web.jsonl", [{"file": f"{row.key}.png", "text": row.text_web} for row in rows])
    known = zip(rows, cycle.web.kinds, cycle.web.match, strict=True)
    truth = [
        {"file": f"{row.key}.png", "text": row.text_web, "kind": kind, "match": match} for row, kind, match in known
    ]
    write_jsonl(tmp_path / "web.truth.jsonl", truth)
    write_json(cycle.out / "config.json", to_dict(SMOKE))
    found = evaluate_run(cycle.out, tmp_path / "web.jsonl")["filter"]
    scores = [row.score_web for row in rows]
    threshold = read_json(cycle.out / "stages.json")["ledger"]["threshold"]
    expected = filter_report(scores, cycle.web.match, cycle.web.kinds, threshold)
    assert found["auc"] == pytest.approx(expected["auc"])
    assert found["counts"] == expected["counts"]


def test_a_second_cycle_finds_everything(cycle, monkeypatch):
    first = [vars(row) for row in cycle.ledger]
    before = read_json(cycle.out / "stages.json")
    monkeypatch.setattr(sys.modules["capfilt.train.loop"]._Run, "train_step", None)
    monkeypatch.setattr(rounds.Predictor, "caption", None)
    again = Cycle(SMOKE, cycle.out)
    assert [vars(row) for row in again.ledger] == first
    assert read_json(cycle.out / "stages.json") == before  # the first times stand


def test_nothing_kept_leaves_the_human_pairs(tmp_path):
    cycle = Cycle(dataclasses.replace(SMOKE, rule=Rule(threshold=2.0)), tmp_path)
    assert {row.decision for row in cycle.ledger} == {"dropped"}
    for variant in ("bootstrapped", "share", "filter"):
        assert cycle.table(variant).texts == cycle.human.table().texts


def test_a_report_needs_a_finished_run(cycle, tmp_path):
    assert not is_told(cycle.out, ("noisy",))
    with pytest.raises(DataError, match="no finished run here"):
        rounds.rewrite_report(tmp_path)


def test_too_few_human_pairs_and_nothing_to_learn_from(tmp_path):
    with pytest.raises(DataError, match="9 human pairs are too few: 8 are held back"):
        Cycle(dataclasses.replace(SMOKE, human=1), tmp_path)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"world": None}, "nothing to learn from"),
        ({"sources": Sources(human="human")}, "--human and --test go with --pairs"),
        ({"sources": Sources(test="test")}, "--human and --test go with --pairs"),
        ({"sources": Sources("web")}, "--pairs needs --human"),
        ({"filter_rounds": 0}, "filter_rounds=0"),
        ({"rerank": 0}, "rerank=0"),
        ({"held_back": 0}, "held_back=0"),
        ({"pool": 0.6, "near": 0.6}, "pool=0.6, near=0.6"),
        ({"max_length": 1000}, "max_length=1000"),
    ],
)
def test_what_cannot_be_is_said_before_hours_of_work(changes, line, tmp_path):
    with pytest.raises(ConfigError, match=line):
        rounds.bootstrap(dataclasses.replace(SMOKE, **changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_settings_without_effect_do_not_make_another_run():
    often = dataclasses.replace(SMOKE, pretrain=dataclasses.replace(SMOKE.pretrain, checkpoint_s=0.0, workers=2))
    assert often.outcome() == SMOKE.outcome()
    other = dataclasses.replace(SMOKE.decoding, diversity=0.1)  # of groups, of which there is one
    assert dataclasses.replace(SMOKE, decoding=other).outcome() == SMOKE.outcome()
    longer = dataclasses.replace(SMOKE, pretrain=dataclasses.replace(SMOKE.pretrain, steps=7))
    assert longer.outcome() != SMOKE.outcome()


def test_paths_are_found_again_from_another_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert Sources("web", "s3://bucket/human").absolute() == Sources(str(tmp_path / "web"), "s3://bucket/human")


@pytest.mark.parametrize(
    "changes",
    [
        {"tied": True},  # Table 4
        {"decoding": Decoding(method="beam", repetition_penalty=1.0, max_length=12)},  # Table 2
        {"rule": Rule(kind="top", share=0.5)},
        {"captioner_learns": "human", "filter_rounds": 1},
        {"rule": Rule(kind="top", share=0.9, best=True)},
    ],
    ids=["tied", "beam", "top", "paper", "best"],
)
def test_other_ways_through_the_cycle(changes, tmp_path):
    cycle = Cycle(dataclasses.replace(SMOKE, **changes), tmp_path)
    counted = {"kept": 0, "replaced": 0, "dropped": 0}
    for row in cycle.ledger:
        counted[row.decision] += 1
    assert sum(counted.values()) == 20 and all(row.text_synthetic is not None for row in cycle.ledger)
    rule = cycle.config.rule
    if rule.kind == "top" and not rule.best:
        assert counted["kept"] == pytest.approx(20 * rule.share, abs=1)
    if rule.best:  # what the filter alone would keep does not hang on the captioner
        alone = len(cycle.table("filter")) - len(cycle.human)
        assert alone == pytest.approx(20 * rule.share, abs=1) and not any(
            row.keep_web and row.keep_synthetic for row in cycle.ledger
        )
    if cycle.config.tied:
        assert cycle.captioner is cycle.filter


def test_two_processes_run_the_cycle_together(tmp_path):
    """`torchrun` of two on one machine: the same stages, each row cleaned by one of them, one report."""
    port = 20000 + os.getpid() % 20000 + 1
    line = [sys.executable, "-m", "capfilt", "bootstrap", "--recipe", "smoke", "--out", str(tmp_path / "run")]
    line += ["--set", "web=1200", "--set", "human=10", "--set", "test=4"]
    shared = dict(os.environ, WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), OMP_NUM_THREADS="1")
    places = [dict(shared, RANK=str(rank), LOCAL_RANK=str(rank)) for rank in range(2)]
    both = [subprocess.Popen(line, env=place, stdout=subprocess.PIPE, text=True) for place in places]
    told = [process.communicate(timeout=240)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert told[0].strip().endswith("report.html") and not told[1]
    counts = read_json(tmp_path / "run/results.json")["counts"]
    assert counts["in"] == 1200 == sum(counts.values()) - counts["in"]


def test_sorted_human_pairs_are_drawn_from_everywhere(pairs, tmp_path):
    """A tenth is held out and eight set the bar: not the last ones of a folder that may be sorted."""
    real = Sources(str(pairs / "web"), str(pairs / "human"), store_px=48)
    cycle = Cycle(dataclasses.replace(SMOKE, sources=real, world=None), tmp_path)
    parts = [cycle.human.keys, cycle.held_back.keys, cycle.test.keys]
    assert sorted(key for part in parts for key in part) == sorted({key for part in parts for key in part})
    assert all(list(part) != sorted(part) for part in parts[:2])
    assert np.array_equal(np.asarray(cycle.test.pictures)[0], cycle.test.pictures[0])
