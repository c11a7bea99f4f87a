"""Retrieval: the share of queries with a right answer among the first k, text for image (tr), image for text (ir).

Source: BLIP (arXiv 2201.12086), section 5.1: cosines choose k candidates, the matching head orders them. Shapes: I
images, T texts, Q queries, C candidates. All values are shares in [0, 1]; papers print 100 times that.

Ties are broken against us: a wrong answer with the same score as the best right one stands before it. So a model that
gives every pair one score gets 0, not luck. Without ties this is the original's order.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float, Int

from capfilt.errors import ConfigError, DataError

KS = (1, 5, 10)
NEVER = -100.0  # the score of a pair that the matching head was not asked about

Positives = np.ndarray | Sequence[Sequence[int]]
ItmScore = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Retrieval:
    """Recall both ways from one test set.

    tr1, tr5, tr10: share of images with one of their texts among the first 1, 5, 10.
    ir1, ir5, ir10: share of texts with their image among the first 1, 5, 10.
    mean:           of the six.
    tr_ranks:       (I,) best rank of each image's texts, from 1.
    ir_ranks:       (T,) rank of each text's image, from 1.
    """

    tr1: float
    tr5: float
    tr10: float
    ir1: float
    ir5: float
    ir10: float
    mean: float
    tr_ranks: np.ndarray = field(repr=False)
    ir_ranks: np.ndarray = field(repr=False)

    def summary(self) -> dict[str, float]:
        """The seven shares by name."""
        return {name: getattr(self, name) for name in ("tr1", "tr5", "tr10", "ir1", "ir5", "ir10", "mean")}

    def hits(self) -> dict[str, np.ndarray]:
        """Name → 1.0 where that query was answered within k, else 0.0: what `intervals` wants."""
        both = (("tr", self.tr_ranks), ("ir", self.ir_ranks))
        return {f"{way}{k}": (ranks <= k).astype(float) for way, ranks in both for k in KS}


def best_ranks(scores: Float[np.ndarray, "q c"], positives: Positives) -> Int[np.ndarray, "q"]:
    """For each query the rank, from 1, of its best right answer: 1 + wrong answers that score as high or higher.

    Args:
        scores: higher is better.
        positives: (Q, C) bool, or for each query the indices of its right answers.

    Raises:
        DataError: a NaN score, another shape, an index out of range, or a query without a right answer.
    """
    right = _as_mask(scores.shape, positives)
    if np.isnan(scores).any():
        raise DataError(
            f"retrieval: {int(np.isnan(scores).sum())} of {scores.size} scores are NaN; the model diverged."
        )
    lonely = np.flatnonzero(~right.any(axis=1))
    if len(lonely):
        raise DataError(
            f"retrieval: {len(lonely)} of {len(right)} queries lack a right answer (first: {lonely[0]}). Drop them."
        )
    best = scores.max(axis=1, where=right, initial=-np.inf, keepdims=True)
    return 1 + ((scores >= best) & ~right).sum(axis=1)


def _as_mask(shape: tuple[int, ...], positives: Positives) -> np.ndarray:
    if isinstance(positives, np.ndarray) and positives.dtype == bool:
        if positives.shape != shape:
            raise DataError(f"retrieval: positives have shape {positives.shape}, scores {shape}; they must be equal.")
        return positives
    if len(positives) != shape[0]:
        raise DataError(f"retrieval: right answers for {len(positives)} queries, scores for {shape[0]}.")
    right = np.zeros(shape, bool)
    for query, indices in enumerate(positives):
        chosen = np.asarray(indices, int)
        if ((chosen < 0) | (chosen >= shape[1])).any():
            raise DataError(
                f"retrieval: query {query} names answers {chosen.tolist()}, there are {shape[1]} candidates."
            )
        right[query, chosen] = True
    return right


def recalls(
    scores: Float[np.ndarray, "q c"], positives: Positives, ks: Sequence[int] = KS
) -> dict[str, float | np.ndarray]:
    """`r1`, `r5`, ... : share of queries with a right answer among the first k; `ranks`: (Q,) from 1.

    Raises:
        DataError: as `best_ranks`, or no query at all.
    """
    if not len(scores):
        raise DataError("retrieval: no query to score.")
    ranks = best_ranks(scores, positives)
    return {**{f"r{k}": float((ranks <= k).mean()) for k in ks}, "ranks": ranks}


def retrieval(
    scores_i2t: Float[np.ndarray, "i t"],
    text_image: Int[np.ndarray, "t"],
    scores_t2i: Float[np.ndarray, "t i"] | None = None,
) -> Retrieval:
    """Recall both ways.

    Args:
        scores_i2t: score of each text for each image, higher is better.
        text_image: for each text the index of its image; every image has at least one text.
        scores_t2i: scores the other way where they differ (after `rerank`); the transpose unless told.

    Raises:
        DataError: as `best_ranks`.
    """
    images = len(scores_i2t)
    low, high = (int(text_image.min()), int(text_image.max())) if len(text_image) else (0, -1)
    if low < 0 or high >= images:
        raise DataError(f"retrieval: texts belong to images {low} to {high}, there are {images} images, from 0.")
    owned = text_image[None, :] == np.arange(images)[:, None]
    tr = recalls(scores_i2t, owned)
    ir = recalls(scores_i2t.T if scores_t2i is None else scores_t2i, owned.T)
    shares = {f"{name}{k}": float(way[f"r{k}"]) for name, way in (("tr", tr), ("ir", ir)) for k in KS}
    mean = sum(shares.values()) / len(shares)
    return Retrieval(**shares, mean=mean, tr_ranks=np.asarray(tr["ranks"]), ir_ranks=np.asarray(ir["ranks"]))


def candidates(sim: Float[np.ndarray, "i t"], k: int) -> tuple[Bool[np.ndarray, "i t"], Bool[np.ndarray, "i t"]]:
    """The k best texts of each image, and the k best images of each text, as masks over (I, T).

    Raises:
        ConfigError: k below 1.
    """
    if k < 1:
        raise ConfigError(f"rerank: k={k} candidates; choose at least 1 (BLIP: 256 on COCO, 128 on Flickr30k).")
    return _top(sim, k), _top(sim.T, k).T


def _top(scores: np.ndarray, k: int) -> np.ndarray:
    if k >= scores.shape[1]:
        return np.ones(scores.shape, bool)
    chosen = np.zeros(scores.shape, bool)
    np.put_along_axis(chosen, np.argpartition(-scores, k - 1, axis=1)[:, :k], True, axis=1)
    return chosen


def rerank(
    sim: Float[np.ndarray, "i t"], k: int, itm_score: ItmScore, itc: float = 1.0
) -> tuple[Float[np.ndarray, "i t"], Float[np.ndarray, "t i"]]:
    """Orders the k best by cosine anew, both ways: matching logit plus cosine; every other pair gets -100.

    Args:
        sim: cosines, not divided by a temperature.
        k: candidates each way; as many as there are where k is larger. With k < 10, R@10 counts only what was asked.
        itm_score: (P,) image indices and (P,) text indices → (P,) raw logit of "match". It is called once for each
            image, all its pairs together (those of both directions, each once), so its tokens are made only once.
        itc: what the cosine counts beside the logit, 1 in BLIP. One over the temperature makes log odds of both:
            ITM learned from wrong pairs that were drawn by that very softmax, so it tells what the cosine leaves open.

    Returns:
        scores (I, T) for finding texts and (T, I) for finding images.

    Raises:
        ConfigError: k below 1.
        DataError: itm_score gives another number of scores than it was asked for.
    """
    for_image, for_text = candidates(sim, k)
    scores = np.full(sim.shape, NEVER, np.result_type(sim.dtype, np.float32))
    for image, asked in enumerate(for_image | for_text):
        texts = np.flatnonzero(asked)
        if not len(texts):
            continue
        logits = np.asarray(itm_score(np.full(len(texts), image), texts))
        if logits.shape != texts.shape:
            raise DataError(
                f"rerank: itm_score gave shape {logits.shape} for {len(texts)} pairs, wanted {texts.shape}."
            )
        scores[image, texts] = logits + itc * sim[image, texts]
    return np.where(for_image, scores, NEVER), np.where(for_text, scores, NEVER).T
