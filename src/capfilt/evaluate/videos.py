"""Clips found by a sentence: recall and median rank, as papers report them for MSRVTT.

Source: BLIP (arXiv 2201.12086), table 10. Shapes: T texts, V clips. Ties are broken against us, as in `retrieval`.
Answers to questions about clips are scored by `answers`: one human answer, the same text or not.
"""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Int

from capfilt.evaluate.retrieval import recalls


@dataclass(frozen=True)
class VideoScores:
    """r1, r5, r10: share of texts with their clip among the first k. median_rank: from 1, lower is better.

    ranks: (T,) int64 from 1.
    """

    r1: float
    r5: float
    r10: float
    median_rank: float
    ranks: np.ndarray = field(repr=False)

    def summary(self) -> dict[str, float]:
        """The four numbers by name."""
        return {name: getattr(self, name) for name in ("r1", "r5", "r10", "median_rank")}


def score_videos(scores: Float[np.ndarray, "t v"], text_video: Int[np.ndarray, "t"]) -> VideoScores:
    """Scores finding each text's clip.

    Args:
        scores: of each clip for each text, higher is better.
        text_video: for each text the index of its clip.

    Raises:
        DataError: no text, a NaN score, or an index that is none of the clips.
    """
    found = recalls(scores, text_video[:, None])
    ranks = np.asarray(found["ranks"])
    shares = {f"r{k}": float(found[f"r{k}"]) for k in (1, 5, 10)}
    return VideoScores(**shares, median_rank=float(np.median(ranks)), ranks=ranks)
