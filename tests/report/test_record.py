"""Results as JSON and as the terminal table."""

import io
import json
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from capfilt.errors import CheckFailed
from capfilt.report import Counts, Metric, Report, results_json, terminal_table
from capfilt.report.story import summary
from capfilt.report.words import duration, score_text


def test_results_have_exactly_the_promised_names(report):
    results = results_json(report)
    assert list(results) == ["noisy", "bootstrapped", "gain", "filter", "counts", "seconds", "peak_mib"]
    metrics = ["tr1", "ir1", "cider", "truth", "coverage"]
    assert list(results["noisy"]) == list(results["bootstrapped"]) == list(results["gain"]) == metrics
    assert list(results["filter"]) == ["auc_swap", "auc_attribute", "auc_junk", "precision", "recall"]
    assert results["counts"] == {"in": 12000, "kept": 4870, "replaced": 4911, "dropped": 2209, "failed": 10}
    assert results["gain"]["tr1"] == [0.071, 0.052, 0.090] and results["noisy"]["cider"] == 0.812
    assert json.loads(json.dumps(results, allow_nan=False)) == results


def test_what_is_unknown_is_none(bare):
    results = results_json(bare)
    assert set(results["noisy"].values()) == set(results["gain"].values()) == set(results["filter"].values()) == {None}
    odd = Report("odd", Counts(1, 1), metrics=(Metric("cider", float("nan"), np.float32(0.5)),))
    assert json.dumps(results_json(odd), allow_nan=False)
    assert results_json(odd)["noisy"]["cider"] is None and results_json(odd)["bootstrapped"]["cider"] == 0.5


def test_counts_must_add_up():
    with pytest.raises(CheckFailed, match=r"7 in, but 1 kept \+ 2 replaced \+ 3 dropped \+ 0 failed = 6"):
        results_json(Report("r", Counts(7, 1, 2, 3, 0)))


def test_a_percent_given_as_a_share_is_refused():
    with pytest.raises(CheckFailed, match=r"tr1 is 45\.2, but a share lies between 0 and 1"):
        Metric("tr1", 45.2)
    assert Metric("cider", 1.8).unit == Metric("bleu4").unit == "points"


def test_a_score_never_reads_as_its_bar():
    assert score_text(0.73, 0.242) == "0.73" and score_text(0.5, 0.5) == "0.50" and score_text(0.2, None) == "0.20"
    assert score_text(0.24191, 0.24197) == "0.2419 (bar 0.2420)" and score_text(0.238, 0.242) == "0.238 (bar 0.242)"


def test_terminal_table_shows_both_models_and_the_gain(report):
    console = Console(width=140, record=True, color_system=None, file=io.StringIO())
    console.print(terminal_table(report))
    text = console.export_text()
    assert "first model" in text and "→ second model" in text and "filter only" in text
    row = next(line for line in text.splitlines() if "TR@1" in line)
    assert row.index("38.1 %") < row.index("45.2 %") < row.index("+7.1 [+5.2, +9.0]") < row.index("43.1 %")
    assert "12,000 pairs in = 4,870 kept + 4,911 replaced + 2,209 dropped + 10 failed" in text


def test_names_with_brackets_are_not_read_as_markup(bare):
    console = Console(width=140, record=True, color_system=None, file=io.StringIO())
    console.print(terminal_table(replace(bare, metrics=(Metric("[bold]a", 0.1, 0.2, extra={"[red]x[/]": 0.3}),))))
    text = console.export_text()
    assert "[red]x[/]" in text and "[bold]a" in text


def test_summary_says_what_the_numbers_say(report):
    words = dict(summary(report))
    assert "12,000 web pairs: drawn" in words["What went in"] and "2,000 human pairs: drawn" in words["What went in"]
    assert "Two copies of the first model" in words["What the captioner wrote"]
    assert "11,990 new texts" in words["What the captioner wrote"]
    assert "The true share of what the texts say rose from 46.1 % to 94.3 %." in words["What the filter threw out"]
    assert "45.2 % of the test images (first model: 38.1 %), clearly better" in words["What it brought"]


@pytest.mark.parametrize(
    ("gain", "expected"),
    [((0.02, -0.01, 0.05), "too small a change to tell from chance"), ((-0.05, -0.08, -0.02), "clearly worse")],
)
def test_summary_does_not_call_a_loss_a_gain(gain, expected):
    words = dict(summary(Report("r", Counts(1, 1), metrics=(Metric("tr1", 0.4, 0.4 + gain[0], gain),))))
    assert expected in words["What it brought"] and "better" not in words["What it brought"]


def test_durations_read_well():
    assert [duration(s) for s in (4.24, 59.99, 200, 7500)] == ["4.2 s", "60.0 s", "3 min 20 s", "2 h 05 min"]
