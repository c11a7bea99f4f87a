"""The rule, by hand: where the bar lies, which texts pass, and that every row is counted once."""

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capfilt.clean.decide import Rule, bar, counts, decide, joint_score
from capfilt.errors import CheckFailed, ConfigError
from capfilt.pair import Row

ROW = Row("a", "kept", "", "a web text", "a synthetic text", 0.5, 0.5)
PAPER = Rule()
SCORE = st.none() | st.floats(0, 1)


def decided(web: float | None, synthetic: float | None, rule: Rule = PAPER, **changes) -> tuple[str, bool, bool]:
    row = decide(dataclasses.replace(ROW, score_web=web, score_synthetic=synthetic, **changes), 0.5, rule)
    return row.decision, row.keep_web, row.keep_synthetic


@pytest.mark.parametrize(
    ("web", "synthetic", "what"),
    [
        (0.5, 0.4, ("kept", True, False)),  # at the bar is above it
        (0.9, 0.9, ("kept", True, True)),  # the paper keeps both
        (0.1, 0.5, ("replaced", False, True)),
        (0.1, 0.2, ("dropped", False, False)),
        (None, None, ("kept", True, True)),  # without a filter all pass
    ],
)
def test_the_paper_rule(web, synthetic, what):
    assert decided(web, synthetic) == what


def test_margin_best_and_missing_texts():
    assert decided(0.1, 0.55, Rule(margin=0.1)) == ("dropped", False, False)
    assert decided(0.1, 1.0, Rule(margin=0.9)) == ("replaced", False, True)  # the bar never rises above 1
    assert decided(0.8, 0.9, Rule(best=True)) == ("replaced", False, True)
    assert decided(0.9, 0.9, Rule(best=True)) == ("kept", True, False)
    assert decided(0.9, 0.9, text_web=None) == ("replaced", False, True)
    assert decided(0.1, None, text_synthetic=None) == ("dropped", False, False)


def test_the_reason_says_what_the_filter_thought():
    row = decide(dataclasses.replace(ROW, score_web=0.31, score_synthetic=0.72), 0.5, Rule())
    assert row.reason == (
        "the filter gave the web text 0.310 (< 0.500); the filter gave the synthetic text 0.720 (≥ 0.500)"
    )
    assert "not judged" in decide(dataclasses.replace(ROW, score_web=None), 0.5, Rule()).reason


def test_a_failed_row_stays_as_it_is():
    row = Row("a", "failed", "truncated: PNG of 7 bytes")
    assert decide(row, 0.0, Rule()) is row


def test_the_joint_score_adds_log_odds():
    assert joint_score(0.3, 0.9, 0.0) == pytest.approx(0.3)  # the paper's filter: the matching head alone
    logit = math.log(0.3 / 0.7) + 10 * (0.9 - 0.5)
    assert joint_score(0.3, 0.9, 10.0) == pytest.approx(1 / (1 + math.exp(-logit)))
    assert joint_score(0.3, 0.5, 10.0) == pytest.approx(0.3)  # a cosine of one half says nothing


@given(st.floats(0, 1), st.floats(-1, 1), st.floats(0, 1e4))
def test_the_joint_score_stays_a_probability(itm, itc, weight):
    assert 0 <= joint_score(itm, itc, weight) <= 1


def test_bars():
    scores = [i / 10 for i in range(11)]
    assert bar(Rule(threshold=0.7), [], []) == 0.7
    assert bar(Rule(kind="top", share=0.3), scores, []) == pytest.approx(0.7)
    assert bar(Rule(kind="human", share=1.0), [0.9], scores) == 0.0  # every human pair passes
    passed = sum(score >= bar(Rule(kind="human", share=0.8), [], scores) for score in scores)
    assert passed == 9  # at least the share asked for


@pytest.mark.parametrize(
    ("rule", "line"),
    [
        (Rule(kind="human"), "needs held-back human pairs"),
        (Rule(kind="top"), "needs web texts"),
    ],
)
def test_a_bar_that_cannot_be(rule, line):
    with pytest.raises(ConfigError, match=line):
        bar(rule, [], [])


@pytest.mark.parametrize("share", [0.0, 1.1, -0.5])
def test_a_share_that_cannot_be(share):
    with pytest.raises(ConfigError, match=f"rule.share={share}"):
        Rule(kind="top", share=share)


@given(st.lists(st.tuples(SCORE, SCORE, st.booleans()), max_size=20), st.floats(0, 1), st.booleans())
def test_every_row_is_counted_once(scores, threshold, best):
    rows = [
        Row(str(i), "failed", "empty: 0 bytes") if failed else dataclasses.replace(ROW, score_web=w, score_synthetic=s)
        for i, (w, s, failed) in enumerate(scores)
    ]
    found = [decide(row, threshold, Rule(best=best)) for row in rows]
    counted = counts(found)
    assert counted["in"] == len(rows) == sum(counted.values()) - counted["in"]
    for row in found:
        kept = {"kept": row.keep_web, "replaced": row.keep_synthetic and not row.keep_web}
        assert kept.get(row.decision, not (row.keep_web or row.keep_synthetic))


def test_an_unknown_decision_is_refused():
    with pytest.raises(CheckFailed, match="'lost': 1"):
        counts([Row(**{**vars(ROW), "decision": "lost"})])
