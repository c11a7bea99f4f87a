"""Visual dialog: where a ranking of the answer options puts the human answer, and what people found fitting.

Source: VisDial (Das et al., arXiv 1611.08669) and the evaluation of its v1.0 challenge. Shapes: R rounds, O options.
Ties are broken against us, as in `retrieval`; without ties these are the challenge's numbers.
"""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Int

from capfilt.errors import DataError
from capfilt.evaluate.retrieval import recalls


@dataclass(frozen=True)
class DialogScores:
    """mrr: mean of 1 / rank, in (0, 1]. r1, r5, r10: share of rounds with the human answer among the first k.

    mean_rank: from 1, lower is better. ranks: (R,) int64 from 1.
    """

    mrr: float
    r1: float
    r5: float
    r10: float
    mean_rank: float
    ranks: np.ndarray = field(repr=False)

    def summary(self) -> dict[str, float]:
        """The five numbers by name."""
        return {name: getattr(self, name) for name in ("mrr", "r1", "r5", "r10", "mean_rank")}


def score_dialogs(scores: Float[np.ndarray, "r o"], right: Int[np.ndarray, "r"]) -> DialogScores:
    """Scores every round by its one human answer ("sparse" annotation).

    Args:
        scores: of each option, higher is better.
        right: index of the human answer among the options.

    Raises:
        DataError: no round, a NaN score, or an index that is none of the options.
    """
    found = recalls(scores, right[:, None])
    ranks = np.asarray(found["ranks"])
    shares = {f"r{k}": float(found[f"r{k}"]) for k in (1, 5, 10)}
    return DialogScores(float((1 / ranks).mean()), **shares, mean_rank=float(ranks.mean()), ranks=ranks)


def ndcg(scores: Float[np.ndarray, "r o"], relevance: Float[np.ndarray, "r o"]) -> Float[np.ndarray, "r"]:
    """Normalised discounted cumulative gain of each densely annotated round, in [0, 1]; its mean is what is reported.

    The first k of the ranking count, k being the number of options with a relevance above 0; the option at rank i
    gains its relevance / log2(i + 1), and the sum is divided by that of the best ranking.

    Args:
        scores: of each option, higher is better.
        relevance: share of people who found it fitting, in [0, 1].

    Raises:
        DataError: a NaN score, a negative relevance, or a round without anything relevant.
    """
    if np.isnan(scores).any():
        raise DataError(f"NDCG: {int(np.isnan(scores).sum())} of {scores.size} scores are NaN; the model diverged.")
    if not (relevance >= 0).all():
        raise DataError("NDCG: a relevance is negative or NaN.")
    counted = (relevance > 0).sum(axis=1)
    if not counted.all():
        raise DataError(
            f"NDCG: {int((counted == 0).sum())} of {len(scores)} rounds have no relevant option. Drop them."
        )
    order = np.lexsort((relevance, -scores))  # of equal scores the less relevant option stands before
    gains = np.take_along_axis(relevance, order, axis=1).astype(np.float64)
    places = np.arange(scores.shape[1])
    discounts = (places < counted[:, None]) / np.log2(places + 2)
    best = -np.sort(-relevance.astype(np.float64), axis=1)
    return (gains * discounts).sum(axis=1) / (best * discounts).sum(axis=1)
