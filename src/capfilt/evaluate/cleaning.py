"""How well the filter tells texts that fit their image from those that do not, where the truth is known.

Scores: higher means "fits". Labels: True where it does. Values are shares in [0, 1], and None where nothing can be said
(no right text, no wrong text of that kind). Junk is easy even for a filter that does not look at the image, swapped
texts are not, so each family of noise is always told apart.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from capfilt.errors import DataError

FAMILIES = ("swap", "attribute", "junk")  # a kind belongs to the family its name begins with: swap_near, junk_filename
POINTS = 200

Scores = np.ndarray | Sequence[float]
Labels = np.ndarray | Sequence[bool]


def roc_auc(scores: Scores, labels: Labels) -> float | None:
    """Chance that a right text scores higher than a wrong one, ties counting half; .5 is guessing.

    None where there is no right or no wrong text.

    Raises:
        DataError: a NaN score, or not one label for each score (so for all functions here).
    """
    wrong, right = _steps(*_checked(scores, labels))[1:]
    if not right[-1] or not wrong[-1]:
        return None
    return float((np.diff(wrong) * (right[1:] + right[:-1]) / 2).sum() / right[-1] / wrong[-1])


def average_precision(scores: Scores, labels: Labels) -> float | None:
    """Mean precision over the right texts, from the best score down; equal scores enter together.

    None where there is no right text.
    """
    wrong, right = _steps(*_checked(scores, labels))[1:]
    if not right[-1]:
        return None
    return float((np.diff(right) * right[1:] / (right + wrong)[1:]).sum() / right[-1])


def roc_curve(scores: Scores, labels: Labels, points: int = POINTS) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The curve for a plot: share of wrong texts kept, share of right texts kept, threshold (kept at or above it).

    From (0, 0), threshold infinity, to (1, 1), lowest score; at most `points` points, even along the curve's length.

    Raises:
        DataError: no right or no wrong text, so no curve.
    """
    thresholds, wrong, right = _steps(*_checked(scores, labels))
    if not right[-1] or not wrong[-1]:
        raise DataError(f"roc_curve: {int(right[-1])} right and {int(wrong[-1])} wrong texts; both are needed.")
    x, y = wrong / wrong[-1], right / right[-1]
    if len(x) > points:
        along = x + y  # both only grow, so this is the way walked, from 0 to 2
        keep = np.unique(np.searchsorted(along, np.linspace(0, 2, points)).clip(max=len(x) - 1))
        x, y, thresholds = x[keep], y[keep], thresholds[keep]
    return x, y, thresholds


def precision_recall_at(scores: Scores, labels: Labels, threshold: float) -> tuple[float | None, float | None]:
    """Share of right texts among those kept (score at or above the threshold), and share of right texts kept."""
    values, right = _checked(scores, labels)
    kept = values >= threshold
    both = int((kept & right).sum())
    return _share(both, int(kept.sum())), _share(both, int(right.sum()))


def filter_report(scores: Scores, match: Labels, kind: Sequence[str | None], threshold: float) -> dict[str, Any]:
    """What a filter did to N texts of known truth, ready for JSON.

    Args:
        scores: (N,) probability or logit of "fits".
        match: (N,) True where the text fits its image, padded texts among them.
        kind: (N,) where each text comes from, such as clean, wrapped, swap_near, attribute, junk_url; None if unknown.
        threshold: texts at or above it are kept.

    Returns:
        auc_swap, auc_attribute, auc_junk: that family's wrong texts against all that fit; None where it is absent.
        auc, ap:           all wrong texts against all that fit.
        precision, recall: at the threshold.
        threshold:         as given.
        counts:            texts in all, that match, kept, and kept though wrong.
        kinds:             kind → count, kept, kept_share, mean_score.

    Raises:
        DataError: a NaN score, or lists of different lengths.
    """
    values, right = _checked(scores, match)
    if len(kind) != len(values):
        raise DataError(f"filter_report: {len(values)} scores and {len(kind)} kinds; give one kind for each score.")
    names = np.array([name or "unknown" for name in kind], dtype=object)
    kept = values >= threshold
    precision, recall = precision_recall_at(values, right, threshold)
    families = {}
    for family in FAMILIES:
        wrong = np.array([name.startswith(family) for name in names], bool) & ~right
        families[f"auc_{family}"] = roc_auc(values[right | wrong], right[right | wrong])
    kinds = {}
    for name in sorted(set(names)):
        own = names == name
        kinds[name] = {
            "count": int(own.sum()),
            "kept": int(kept[own].sum()),
            "kept_share": float(kept[own].mean()),
            "mean_score": float(values[own].mean()),
        }
    return {
        **families,
        "auc": roc_auc(values, right),
        "ap": average_precision(values, right),
        "precision": precision,
        "recall": recall,
        "threshold": float(threshold),
        "counts": {
            "texts": len(values),
            "match": int(right.sum()),
            "kept": int(kept.sum()),
            "kept_wrong": int((kept & ~right).sum()),
        },
        "kinds": kinds,
    }


def _checked(scores: Scores, labels: Labels) -> tuple[np.ndarray, np.ndarray]:
    values, right = np.asarray(scores, float), np.asarray(labels, bool)
    if values.ndim != 1 or values.shape != right.shape:
        raise DataError(
            f"filter quality: scores of shape {values.shape}, labels of shape {right.shape}; give (N,) of each."
        )
    if np.isnan(values).any():
        raise DataError(
            f"filter quality: {int(np.isnan(values).sum())} of {len(values)} scores are NaN; leave them out."
        )
    return values, right


def _steps(values: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Thresholds from infinity down through every score, and wrong and right texts at or above each."""
    order = np.argsort(-values, kind="stable")
    ranked = values[order]
    last = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True)) if len(ranked) else np.zeros(0, int)
    hits = np.cumsum(right[order])[last]
    zero = [0.0]
    return (
        np.concatenate([[np.inf], ranked[last]]),
        np.concatenate([zero, last + 1 - hits]),
        np.concatenate([zero, hits]),
    )


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
