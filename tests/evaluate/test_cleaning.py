"""Filter quality against counting every pair, and numbers worked out by hand."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capfilt.errors import DataError
from capfilt.evaluate.cleaning import average_precision, filter_report, precision_recall_at, roc_auc, roc_curve

rows = st.lists(st.tuples(st.integers(-5, 5), st.booleans()), min_size=1, max_size=30)  # few values, so many ties


def split(found):
    return np.array([s for s, _ in found], float), np.array([y for _, y in found], bool)


@given(rows)
def test_auc_is_the_share_of_pairs_in_order(found):
    scores, labels = split(found)
    right, wrong = scores[labels], scores[~labels]
    pairs = [(a > b) + (a == b) / 2 for a in right for b in wrong]
    assert roc_auc(scores, labels) == (pytest.approx(np.mean(pairs)) if pairs else None)


@given(rows)
def test_only_the_order_of_scores_counts(found):
    scores, labels = split(found)
    squashed = 1 / (1 + np.exp(-3 * scores - 1))
    assert roc_auc(squashed, labels) == roc_auc(scores, labels)
    assert average_precision(squashed, labels) == average_precision(scores, labels)
    area = roc_auc(-scores, labels)
    assert area is None or area == pytest.approx(1 - (roc_auc(scores, labels) or 0))


@given(rows)
def test_average_precision_is_the_sum_over_thresholds(found):
    scores, labels = split(found)
    total, before = 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        precision, recall = precision_recall_at(scores, labels, threshold)
        if recall is not None and precision is not None:
            total, before = total + (recall - before) * precision, recall
    assert average_precision(scores, labels) == (pytest.approx(total) if labels.any() else None)


def test_by_hand():
    scores, labels = [0.9, 0.8, 0.7, 0.6], [True, False, True, False]
    assert roc_auc(scores, labels) == pytest.approx(3 / 4)
    assert average_precision(scores, labels) == pytest.approx((1 + 2 / 3) / 2)
    assert precision_recall_at(scores, labels, 0.7) == (pytest.approx(2 / 3), 1.0)
    assert precision_recall_at(scores, labels, 1.0) == (None, 0.0)
    x, y, thresholds = roc_curve(scores, labels)
    assert (x.tolist(), y.tolist()) == ([0, 0, 0.5, 0.5, 1], [0, 0.5, 0.5, 1, 1])
    assert thresholds.tolist() == [np.inf, 0.9, 0.8, 0.7, 0.6]


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 5000), st.integers(0, 9))
def test_a_thinned_curve_is_the_same_curve(count, seed):
    draw = np.random.default_rng(seed)
    labels = np.arange(count) % 2 == 0
    scores = draw.normal(size=count) + labels
    x, y, thresholds = roc_curve(scores, labels)
    assert len(x) <= 200 and (x[0], y[0], x[-1], y[-1]) == (0, 0, 1, 1)
    assert (np.diff(x) >= 0).all() and (np.diff(y) >= 0).all() and (np.diff(thresholds) < 0).all()
    assert ((np.diff(x) * (y[1:] + y[:-1]) / 2).sum()) == pytest.approx(roc_auc(scores, labels), abs=5e-3)
    for i in (len(x) // 2, -1):
        assert (scores[labels] >= thresholds[i]).mean() == pytest.approx(y[i])


def test_report_by_hand():
    kinds = ["clean", "wrapped", "swap_near", "swapped", "junk_url", "attribute", None]
    match = [True, True, False, False, False, False, True]
    scores = [0.9, 0.4, 0.5, 0.1, 0.0, 0.8, 0.7]
    found = filter_report(scores, match, kinds, threshold=0.5)
    assert found["auc_swap"] == pytest.approx(5 / 6)
    assert found["auc_junk"] == 1.0
    assert found["auc_attribute"] == pytest.approx(1 / 3)
    assert found["auc"] == pytest.approx((5 + 3 + 1) / 12)
    assert (found["precision"], found["recall"]) == (pytest.approx(2 / 4), pytest.approx(2 / 3))
    assert found["counts"] == {"texts": 7, "match": 3, "kept": 4, "kept_wrong": 2}
    assert found["kinds"]["swap_near"] == {"count": 1, "kept": 1, "kept_share": 1.0, "mean_score": 0.5}
    assert sum(kind["count"] for kind in found["kinds"].values()) == 7 and "unknown" in found["kinds"]
    json.dumps(found, allow_nan=False)


def test_families_that_are_absent_are_none():
    found = filter_report([0.9, 0.2], [True, False], ["clean", "junk"], 0.5)
    assert (found["auc_swap"], found["auc_attribute"], found["auc_junk"]) == (None, None, 1.0)
    nothing_wrong = filter_report(np.array([0.9, 0.2]), np.array([True, True]), ["clean", "clean"], 0.95)
    assert (nothing_wrong["auc"], nothing_wrong["precision"], nothing_wrong["recall"]) == (None, None, 0.0)
    nothing = filter_report([], [], [], 0.5)
    assert (nothing["auc"], nothing["ap"], nothing["counts"]["texts"]) == (None, None, 0)


def test_a_chance_swap_that_fits_is_no_mistake():
    # A swapped text whose truth says it fits all the same counts as right.
    assert filter_report([0.9, 0.8, 0.1], [True, True, False], ["clean", "swapped", "swapped"], 0.5)["auc_swap"] == 1.0


def test_mistakes_say_so():
    with pytest.raises(DataError, match="1 of 2 scores are NaN"):
        roc_auc([0.1, float("nan")], [True, False])
    with pytest.raises(DataError, match="labels of shape"):
        roc_auc([0.1], [True, False])
    with pytest.raises(DataError, match="one kind for each score"):
        filter_report([0.1], [True], [], 0.5)
    with pytest.raises(DataError, match="roc_curve: 1 right and 0 wrong"):
        roc_curve([0.1], [True])
