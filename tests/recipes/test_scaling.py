"""Scaling: what is run is what is said, and what comes out is written. The ratios are for a quiet machine."""

import io
import json
import sys
from types import SimpleNamespace

import pytest

from capfilt.errors import CheckFailed, ConfigError
from capfilt.files import read_json, read_jsonl, write_json
from capfilt.models.blip import PRESETS
from capfilt.recipes import scaling
from capfilt.runtime import machine


@pytest.fixture(autouse=True)
def _stay(monkeypatch):
    """The test's own process keeps its cores and threads."""
    monkeypatch.setattr(scaling, "_keep_to", lambda allowed: None)
    monkeypatch.setattr(scaling, "cores", lambda: [0, 1])


def test_rows_are_written_beside_what_was_there(monkeypatch, tmp_path, capsys):
    row = {"ours_s": 1.0, "peer_s": 1.9, "ratio": 1.9, "low": 1.8, "high": 2.0, "rounds": 2}
    rows = {"a": (1.8, "image", "one core", lambda rounds: row), "b": (1.6, "pair", "one process", lambda rounds: row)}
    monkeypatch.setattr(scaling, "ROWS", rows)
    out = tmp_path / "results.json"
    write_json(out, {"machine": machine(), "rows": {"of": "others"}})
    scaling.scaling(["a"], out, 2)
    assert read_json(out) == {
        "machine": machine(),
        "rows": {"of": "others"},
        "scaling": {"a": {**row, "goal": 1.8, "each": "image", "peer": "one core"}},
    }
    assert capsys.readouterr().out == "a: 1.90x (1.80 to 2.00, goal 1.8) one core: 1 s against 1.9 s for each image\n"
    scaling.scaling([], out, 2)
    assert set(read_json(out)["scaling"]) == {"a", "b"}
    write_json(out, {"machine": "another", "rows": {}})
    scaling.scaling(["b"], out, 2)
    assert set(read_json(out)) == {"machine", "scaling"} and "written anew" in capsys.readouterr().out


def test_unknown_rows_and_single_cores_are_refused(monkeypatch, tmp_path):
    with pytest.raises(ConfigError, match="no row c; there are train-2"):
        scaling.scaling(["c"], tmp_path / "r.json")
    monkeypatch.setattr(scaling, "cores", lambda: [3])
    with pytest.raises(CheckFailed, match="two cores"):
        scaling.scaling(["match-2-cores"], tmp_path / "r.json")


def test_a_ratio_is_the_median_of_the_rounds():
    assert scaling._ratio([(1.0, 2.0), (2.0, 3.0), (1.0, 1.9)]) == {
        **{"ours_s": 1.0, "peer_s": 2.0, "ratio": 1.9, "low": 1.5, "high": 2.0, "rounds": 3}
    }


def test_a_rank_trains_and_logs_its_speed(monkeypatch, tmp_path):
    monkeypatch.setattr(scaling, "BATCH", 4)
    scaling.train(tmp_path, steps=2 * scaling.WINDOW)
    rows = read_jsonl(tmp_path / "metrics.jsonl")
    assert [row["step"] for row in rows] == [scaling.WINDOW, 2 * scaling.WINDOW]
    assert all(row["pairs_per_s"] > 0 for row in rows)


def test_a_server_answers_each_line_with_seconds(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.StringIO("caption\nmatch\n"))
    scaling.serve([0], PRESETS["demo"])
    answers = [float(line) for line in capsys.readouterr().out.splitlines()]
    assert len(answers) == 2 and min(answers) > 0


def test_rows_are_all_made(monkeypatch):
    made = []
    original = scaling.in_shards
    monkeypatch.setattr(scaling, "in_shards", lambda *given: made.append(original(*given)) or made[-1])
    row = scaling.many_rows(2, few=5, many=20)
    assert [len(rows) for rows in made] == [5, 5, 20, 5, 20] and all(rows[0]["text"] for rows in made)
    assert row["rows"] == [5, 20] and json.loads(json.dumps(row)) == row


@pytest.mark.parametrize(("power", "ratio"), [(1, 1.0), (2, 0.25)])
def test_many_rows_show_what_grows_and_not_the_few_between(monkeypatch, power, ratio):
    now, original = [0.0], scaling.in_shards

    def costing(out, stage, total, work, about):
        now[0] += total**power
        return original(out, stage, total, work, about, size=10)

    monkeypatch.setattr(scaling, "in_shards", costing)
    monkeypatch.setattr(scaling, "time", SimpleNamespace(process_time=lambda: now[0]))
    row = scaling.many_rows(2, few=5, many=20)
    assert (row["low"], row["high"], row["peer_s"]) == (ratio, ratio, 5 ** (power - 1))
