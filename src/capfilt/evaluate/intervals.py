"""How far a measured number can be trusted: an interval that holds the true one `level` of the time.

The bootstrap (Efron 1979, percentiles) for many queries: draw the queries again with replacement, `n` times, and look
how the number moves. Student's t for few numbers, such as one for each of five seeds. Every interval is
(value, low, high), depends on its inputs and `seed` alone, and says nothing about biased data.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from capfilt.errors import ConfigError, DataError
from capfilt.evaluate.cleaning import roc_auc
from capfilt.runtime import rng

DRAWS = 2000
CHUNK = 2_000_000  # numbers drawn at once: 16 MB

Interval = tuple[float, float, float]
Values = np.ndarray | Sequence[Any]


def mean_interval(
    values: Values, n: int = DRAWS, seed: int = 0, level: float = 0.95, groups: Values | None = None
) -> Interval:
    """The mean of per-query values. One query alone gives an interval without width.

    Args:
        values: (Q,) numbers or hits.
        n: draws.
        seed: of the draws.
        level: share of cases in which the interval should hold the truth, in (0, 1).
        groups: (Q,) equal where queries hang together, such as five texts of one image: then whole groups are drawn.

    Raises:
        DataError: no value, a value that is no finite number, or lists of different lengths (so for all of these).
        ConfigError: a level outside (0, 1), or no draw (so for all of these).
    """
    found = _numbers("mean_interval", values)
    return ratio_interval(found, np.ones_like(found), n, seed, level, groups)


def gain_interval(
    before: Values,
    after: Values,
    n: int = DRAWS,
    seed: int = 0,
    level: float = 0.95,
    groups: Values | None = None,
) -> Interval:
    """The mean of after - before over the same queries in the same order; low > 0 is a gain that chance does not make.

    Pairing matters: what is hard for both models cancels, so the interval is narrower than two apart.
    """
    old, new = _numbers("gain_interval", before), _numbers("gain_interval", after)
    _same_length("gain_interval", old, new)
    return mean_interval(new - old, n, seed, level, groups)


def ratio_interval(
    numerators: Values,
    denominators: Values,
    n: int = DRAWS,
    seed: int = 0,
    level: float = 0.95,
    groups: Values | None = None,
) -> Interval:
    """Sum of numerators over sum of denominators, such as true facts over stated facts, queries drawn as wholes.

    Raises:
        DataError: the denominators sum to 0.
    """
    top, below = _numbers("ratio_interval", numerators), _numbers("ratio_interval", denominators)
    _same_length("ratio_interval", top, below)
    if not below.sum():
        raise DataError("ratio_interval: the denominators sum to 0, so there is no ratio.")
    ratio = float(top.sum() / below.sum())
    if groups is not None:
        own = np.unique(np.asarray(groups), return_inverse=True)[1]
        _same_length("ratio_interval", top, own)
        top, below = np.bincount(own, top), np.bincount(own, below)
    generator, drawn = rng("interval", seed), np.empty(_draws(n))
    rows = max(1, CHUNK // len(top))
    for start in range(0, n, rows):
        chosen = generator.integers(0, len(top), (min(rows, n - start), len(top)))
        with np.errstate(invalid="ignore", divide="ignore"):  # a draw of nothing but zero denominators has no ratio
            drawn[start : start + rows] = top[chosen].sum(1) / below[chosen].sum(1)
    return _percentiles(ratio, drawn[np.isfinite(drawn)], level)


def auc_interval(scores: Values, labels: Values, n: int = DRAWS, seed: int = 0, level: float = 0.95) -> Interval:
    """The area under the ROC curve, right and wrong texts drawn each among themselves.

    Raises:
        DataError: no right or no wrong text.
    """
    values, right = _numbers("auc_interval", scores), np.asarray(labels, bool)
    _same_length("auc_interval", values, right)
    area = roc_auc(values, right)
    if area is None:
        raise DataError(
            f"auc_interval: {int(right.sum())} right and {int((~right).sum())} wrong texts; both are needed."
        )
    place = np.unique(values, return_inverse=True)[1]
    size = int(place.max()) + 1
    shares = [np.bincount(place[own], minlength=size) / own.sum() for own in (right, ~right)]
    generator, drawn = rng("interval", seed), np.empty(_draws(n))
    rows = max(1, CHUNK // size)
    for start in range(0, n, rows):
        count = min(rows, n - start)
        # How often each score is drawn is all that counts, so no draw needs sorting.
        hits, misses = (
            generator.multinomial(int(own.sum()), share, count) / own.sum()
            for own, share in zip((right, ~right), shares, strict=True)
        )
        drawn[start : start + count] = (hits * (np.cumsum(misses, axis=1) - misses / 2)).sum(1)
    return _percentiles(area, drawn, level)


def t_interval(values: Values, level: float = 0.95) -> Interval:
    """The mean of a few independent numbers, by Student's t.

    Raises:
        DataError: fewer than two values: one says nothing about how far others lie.
    """
    found = _numbers("t_interval", values)
    _checked_level(level)
    if len(found) < 2:
        raise DataError(f"t_interval: {len(found)} value; run at least 2 seeds to learn how far they spread.")
    mean = float(found.mean())
    half = t_quantile(len(found) - 1, level) * float(found.std(ddof=1)) / math.sqrt(len(found))
    return mean, mean - half, mean + half


def t_quantile(freedom: int, level: float) -> float:
    """The t that a Student variable with `freedom` >= 1 degrees stays within, both sides, with probability `level`."""
    low, high = 0.0, math.pi / 2
    for _ in range(100):  # halving: the angle is exact long before
        angle = (low + high) / 2
        if _t_within(freedom, angle) < level:
            low = angle
        else:
            high = angle
    return math.sqrt(freedom) * math.tan((low + high) / 2)


def _t_within(freedom: int, angle: float) -> float:
    """P(|t| < sqrt(freedom) · tan(angle)): the finite series for whole degrees (Abramowitz & Stegun 26.7.3-4)."""
    sine, cosine = math.sin(angle), math.cos(angle)
    if freedom == 1:
        return 2 * angle / math.pi
    odd = freedom % 2
    term = total = cosine if odd else 1.0
    for k in range(2 + odd, freedom - 1, 2):
        term *= (k - 1) / k * cosine**2
        total += term
    return 2 / math.pi * (angle + sine * total) if odd else sine * total


def _percentiles(value: float, drawn: np.ndarray, level: float) -> Interval:
    _checked_level(level)
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return value, float(low), float(high)


def _numbers(who: str, values: Values) -> np.ndarray:
    found = np.asarray(values, float)
    if found.ndim != 1 or not len(found):
        raise DataError(f"{who}: values of shape {found.shape}; give a list of at least one number.")
    if not np.isfinite(found).all():
        raise DataError(
            f"{who}: {int((~np.isfinite(found)).sum())} of {len(found)} values are not finite; leave them out."
        )
    return found


def _same_length(who: str, first: np.ndarray, second: np.ndarray) -> None:
    if len(first) != len(second):
        raise DataError(f"{who}: {len(first)} and {len(second)} values; they must belong to the same queries.")


def _draws(n: int) -> int:
    if n < 1:
        raise ConfigError(f"interval: n={n} draws; take at least 1, better 1000 or more.")
    return n


def _checked_level(level: float) -> None:
    if not 0 < level < 1:
        raise ConfigError(f"interval: level={level} must lie between 0 and 1, such as 0.95.")
