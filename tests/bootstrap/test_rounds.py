"""The stages of a cycle: what each variant is trained on, what is noted, what a resumed cycle does not do again."""

import dataclasses
import sys

import pytest
from PIL import Image

from capfilt.bootstrap import rounds
from capfilt.bootstrap.rounds import Cycle
from capfilt.bootstrap.tell import is_told
from capfilt.clean.decide import Rule
from capfilt.config import to_dict
from capfilt.errors import ConfigError, DataError
from capfilt.evaluate.cleaning import filter_report
from capfilt.files import read_json, read_jsonl, write_json, write_jsonl
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
    found = rounds.evaluate_run(cycle.out, tmp_path / "web.jsonl")["filter"]
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
    with pytest.raises(ConfigError, match="nothing to learn from"):
        Cycle(dataclasses.replace(SMOKE, world=None), tmp_path)
