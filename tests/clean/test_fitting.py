"""The bar that people's words put: by hand, against a search over all bars, and on a run."""

import json
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capfilt.clean import fitting
from capfilt.clean.fitting import fit, fit_run, reviewed
from capfilt.clean.policies import Policy
from capfilt.clean.reviews import Review, append
from capfilt.clean.views import decide_run
from capfilt.errors import ConfigError, DataError

from .run_tables import row_id, rows, run, scores


@pytest.fixture(autouse=True)
def few(monkeypatch):
    monkeypatch.setattr(fitting, "FEW", 2)


def fitted(*told, precision=None):
    """told: (score, accepted)."""
    return fit(np.array([score for score, _ in told]), np.array([bool(right) for _, right in told]), precision)


def test_by_hand():
    found = fitted((0.9, 1), (0.8, 1), (0.7, 0), (0.6, 1), (0.1, 0))
    assert found.threshold == 0.6 and found.precision == 0.75 and found.recall == 1.0
    assert found.f1 == pytest.approx(6 / 7) and (found.accepted, found.rejected) == (3, 2)
    assert found.average_precision == pytest.approx((1 + 1 + 0.75) / 3)
    assert found.curve[0] == pytest.approx((0.9, 1.0, 1 / 3)) and found.curve[-1] == pytest.approx((0.1, 0.6, 1.0))
    assert json.loads(json.dumps(asdict(found)))["threshold"] == 0.6


def test_the_lowest_bar_with_a_precision():
    told = (0.9, 1), (0.8, 0), (0.7, 1), (0.6, 1), (0.1, 0)
    assert fitted(*told, precision=0.9).threshold == 0.9
    assert fitted(*told, precision=0.75).threshold == 0.6
    assert fitted(*told, precision=0.1).threshold == 0.1
    with pytest.raises(ConfigError, match="no bar reaches it"):
        fitted((0.9, 0), (0.8, 1), (0.7, 1), (0.1, 0), precision=0.99)
    with pytest.raises(ConfigError, match="share"):
        fitted(*told, precision=1.5)


def test_equal_scores_pass_together():
    found = fitted((0.5, 1), (0.5, 0), (0.5, 1), (0.2, 0))
    assert np.array(found.curve) == pytest.approx(np.array([(0.5, 2 / 3, 1.0), (0.2, 0.5, 1.0)]))


def test_too_few_of_a_kind():
    for told in ([(0.5, 1)] * 5, [(0.5, 0)] * 5 + [(0.9, 1)], []):
        with pytest.raises(DataError, match="at least 2 of each"):
            fitted(*told)


TOLD = st.lists(st.tuples(st.integers(0, 20).map(lambda n: n / 20), st.booleans()), min_size=4, max_size=60)


@settings(max_examples=60, deadline=None)  # a busy machine is no fault
@given(TOLD.filter(lambda told: 2 <= sum(right for _, right in told) <= len(told) - 2))
def test_no_other_bar_does_better(told):
    found = fitted(*told)
    for bar in {score for score, _ in told}:
        passed = [right for score, right in told if score >= bar]
        assert 2 * sum(passed) / (len(passed) + found.accepted) <= found.f1 + 1e-9
    passed = [right for score, right in told if score >= found.threshold]
    assert found.precision == pytest.approx(sum(passed) / len(passed))
    assert found.recall == pytest.approx(sum(passed) / found.accepted)


def test_the_curve_is_thinned_but_keeps_its_ends():
    draw = np.random.default_rng(0)
    scores = draw.permutation(1000) / 1000
    found = fit(scores, draw.uniform(size=1000) < scores)
    assert len(found.curve) <= fitting.POINTS
    assert found.curve[0][0] == scores.max() and found.curve[-1][0] == scores.min()


def test_a_run_s_reviews(tmp_path):
    table = rows(**{key: ["w"] for key in "abcdef"})
    judged = scores(**{key: ([0.9 - 0.1 * i], {"s": 0.1 * i}) for i, key in enumerate("abcdef")})
    out = run(tmp_path, (table, judged))
    with pytest.raises(DataError, match="decide first"):
        reviewed(out)
    decide_run(out, Policy())
    said = (
        Review("a", "accept", "web", "w"),
        Review("b", "accept", "synthetic", "another text than there is now"),
        Review("c", "reject", "synthetic"),
        Review("d", "reject"),
        Review("e", "edit", "web", "mine"),
        Review("f", "accept", "web", "w"),
        Review("f", "undo"),
    )
    append(out, *(Review(row_id(one.id), one.verdict, one.which, one.text) for one in said))
    found = sorted(zip(*reviewed(out), strict=True))
    assert found == [(pytest.approx(0.2), False), (pytest.approx(0.3), False), (pytest.approx(0.6), False),
                     (pytest.approx(0.9), True)]  # fmt: skip
    append(out, Review(row_id("b"), "accept", "web", "w"))
    assert fit_run(out).threshold == pytest.approx(0.8)
