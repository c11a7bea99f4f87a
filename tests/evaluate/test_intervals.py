"""Intervals against formulas, tables of Student's t, and how often they hold the truth."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from capfilt.errors import ConfigError, DataError
from capfilt.evaluate.cleaning import roc_auc
from capfilt.evaluate.intervals import (
    auc_interval,
    gain_interval,
    mean_interval,
    ratio_interval,
    t_interval,
    t_quantile,
)


@pytest.fixture
def values():
    return np.random.default_rng(5).normal(3.0, 2.0, 400)


def test_mean_is_as_wide_as_the_formula_says(values):
    mean, low, high = mean_interval(values)
    half = 1.96 * values.std(ddof=1) / math.sqrt(len(values))
    assert mean == pytest.approx(values.mean())
    assert (low, high) == (pytest.approx(mean - half, abs=0.1 * half), pytest.approx(mean + half, abs=0.1 * half))


def test_the_seed_alone_decides(values):
    assert mean_interval(values, seed=1) == mean_interval(values.tolist(), seed=1) != mean_interval(values, seed=2)


def test_a_higher_level_is_wider(values):
    _, low80, high80 = mean_interval(values, level=0.8)
    _, low99, high99 = mean_interval(values, level=0.99)
    assert low99 < low80 < high80 < high99


def test_it_holds_the_truth_about_as_often_as_it_says():
    draw = np.random.default_rng(0)
    held = [low <= 0.3 <= high for _, low, high in (mean_interval(draw.random(60) < 0.3, n=300) for _ in range(200))]
    assert 0.88 <= np.mean(held) <= 0.99


def test_groups_count_as_one_query_each():
    one = np.random.default_rng(1).normal(size=100)
    five, owner = np.repeat(one, 5), np.repeat(np.arange(100), 5)
    assert mean_interval(five, groups=owner) == pytest.approx(mean_interval(one))
    wide, narrow = (high - low for _, low, high in (mean_interval(five, groups=owner), mean_interval(five)))
    assert wide / narrow == pytest.approx(math.sqrt(5), rel=0.1)


def test_pairing_makes_a_gain_visible(values):
    after = values + 0.1 + np.random.default_rng(2).normal(0, 0.2, len(values))
    gain, low, high = gain_interval(values, after)
    assert gain == pytest.approx((after - values).mean())
    assert 0.05 < low < gain < high < 0.15
    assert mean_interval(after)[1] < values.mean()  # two intervals side by side would not show it


def test_ratio_by_hand_and_with_empty_rows():
    ratio, low, high = ratio_interval([1, 2, 0, 3], [2, 2, 0, 4])
    assert ratio == pytest.approx(6 / 8)
    assert 0.5 <= low <= ratio <= high <= 1.0
    assert ratio_interval([3, 6, 9], [4, 8, 12]) == pytest.approx((0.75, 0.75, 0.75))


def test_ratio_of_ones_is_the_mean(values):
    assert ratio_interval(values, np.ones(len(values))) == pytest.approx(mean_interval(values))


def test_auc_is_that_of_drawing_by_hand():
    draw = np.random.default_rng(3)
    labels = np.arange(80) % 2 == 0
    scores = np.round(draw.normal(size=80) + labels)  # with many ties
    area, low, high = auc_interval(scores, labels, n=1000)
    right, wrong = scores[labels], scores[~labels]
    again = [
        roc_auc(np.concatenate([draw.choice(right, 40), draw.choice(wrong, 40)]), np.arange(80) < 40)
        for _ in range(1000)
    ]
    assert area == roc_auc(scores, labels)
    assert (low, high) == pytest.approx(tuple(np.quantile(again, [0.025, 0.975])), abs=0.02)


def test_auc_of_a_perfect_filter_has_no_width():
    assert auc_interval([0.9, 0.8, 0.1], [True, True, False]) == pytest.approx((1.0, 1.0, 1.0))


@pytest.mark.parametrize(
    ("freedom", "level", "wanted"),
    [  # a printed table of Student's t
        (1, 0.95, 12.706205),
        (2, 0.95, 4.302653),
        (3, 0.95, 3.182446),
        (4, 0.95, 2.776445),
        (4, 0.99, 4.604095),
        (5, 0.90, 2.015048),
        (9, 0.95, 2.262157),
        (10, 0.95, 2.228139),
        (30, 0.95, 2.042272),
        (1000, 0.95, 1.962339),
    ],
)
def test_t_quantiles(freedom, level, wanted):
    assert t_quantile(freedom, level) == pytest.approx(wanted, abs=1e-6)


def test_t_interval_of_five_seeds():
    mean, low, high = t_interval([0.50, 0.52, 0.54, 0.56, 0.58])
    half = 2.776445 * math.sqrt(0.001) / math.sqrt(5)
    assert (mean, low, high) == pytest.approx((0.54, 0.54 - half, 0.54 + half))


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20))
def test_bounds_enclose_and_stay_inside_the_data(found):
    mean, low, high = mean_interval(found, n=50)
    slack = 1e-9 * (1 + max(map(abs, found)))
    assert min(found) - slack <= low <= high <= max(found) + slack
    assert min(found) - slack <= mean <= max(found) + slack


def test_mistakes_say_so():
    with pytest.raises(DataError, match="at least one number"):
        mean_interval([])
    with pytest.raises(DataError, match="not finite"):
        mean_interval([1.0, float("nan")])
    with pytest.raises(DataError, match="2 and 3 values"):
        gain_interval([1.0, 2.0], [1.0, 2.0, 3.0])
    with pytest.raises(DataError, match="sum to 0"):
        ratio_interval([1.0], [0.0])
    with pytest.raises(DataError, match="both are needed"):
        auc_interval([1.0], [True])
    with pytest.raises(DataError, match="at least 2 seeds"):
        t_interval([1.0])
    with pytest.raises(ConfigError, match="level=95"):
        mean_interval([1.0], level=95)
    with pytest.raises(ConfigError, match="n=0"):
        mean_interval([1.0], n=0)
