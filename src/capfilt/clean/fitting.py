"""Where the bar should lie, by what people said: texts accepted and rejected, in the order of the filter's scores."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float
from pyarrow import compute, parquet

from capfilt.clean import reviews
from capfilt.clean.reviews import Review
from capfilt.errors import ConfigError, DataError

FEW = 10  # texts of a kind from which on a bar is placed at all
POINTS = 200  # of the curve that are kept for the page
COLUMNS = ["id", "web_text", "synthetic_text", "score_web", "score_synthetic"]


@dataclass(frozen=True)
class Fitted:
    """A bar and how good it is on the reviewed texts; all within [0, 1] but scores by ITC.

    threshold:          texts at it or above pass.
    precision, recall:  share of those that pass which people accepted; share of the accepted that pass.
    average_precision:  of the filter's order of texts, whatever the bar: precision summed over steps of recall.
    accepted, rejected: texts it was fitted to.
    curve:              (threshold, precision, recall), thresholds falling; at most `POINTS` of them.
    """

    threshold: float
    precision: float
    recall: float
    f1: float
    average_precision: float
    accepted: int
    rejected: int
    curve: Sequence[tuple[float, float, float]]


def fit_run(out: Path | str, precision: float | None = None) -> Fitted:
    """Fits to a run's reviews, by the scores of its last decisions. Arguments and errors as `fit`."""
    return fit(*reviewed(out), precision)


def fit(scores: Float[np.ndarray, "n"], right: Bool[np.ndarray, "n"], precision: float | None = None) -> Fitted:
    """The bar with the best F1, or the lowest that reaches `precision`.

    right: whether people accepted the text.

    Raises:
        DataError: fewer than `FEW` texts of either kind.
        ConfigError: a precision that is no share, or that no bar reaches.
    """
    accepted = int(right.sum())
    if min(accepted, len(right) - accepted) < FEW:
        raise DataError(
            f"{accepted} accepted and {len(right) - accepted} rejected texts with a score: a bar takes at least {FEW} "
            "of each; review more rows"
        )
    if precision is not None and not 0 < precision <= 1:
        raise ConfigError(f"precision={precision}: a share lies above 0 and at most at 1")
    order = np.argsort(-scores, kind="stable")
    scores = scores[order]
    ends = np.flatnonzero(np.append(scores[1:] != scores[:-1], True))  # equal scores pass together
    hits = np.cumsum(right[order])[ends]
    reached, found = hits / (ends + 1), hits / accepted
    f1 = 2 * hits / (ends + 1 + accepted)
    if precision is None:
        at = int(f1.argmax())
    elif (reached >= precision).any():
        at = int(np.flatnonzero(reached >= precision)[-1])
    else:
        raise ConfigError(f"precision={precision}: no bar reaches it, the best has {reached.max():.3f}; ask for less")
    shown = np.unique(np.linspace(0, len(ends) - 1, min(POINTS, len(ends))).round().astype(int))
    curve = np.stack([scores[ends], reached, found], axis=1)
    return Fitted(
        threshold=float(scores[ends][at]),
        precision=float(reached[at]),
        recall=float(found[at]),
        f1=float(f1[at]),
        average_precision=float((reached * np.diff(found, prepend=0.0)).sum()),
        accepted=accepted,
        rejected=len(right) - accepted,
        curve=[(float(t), float(p), float(r)) for t, p, r in curve[shown]],
    )


def reviewed(out: Path | str) -> tuple[Float[np.ndarray, "n"], Bool[np.ndarray, "n"]]:
    """Scores of the texts that people judged in a run, and whether they accepted them.

    A rejected row speaks against each of its texts unless it names one; an edit speaks for neither side. Texts that
    were written anew since, or have no score, are left out.

    Raises DataError where nothing was decided yet.
    """
    path = Path(out) / "decisions.parquet"
    if not path.is_file():
        raise DataError(f"{path}: no such file; decide first")
    words = {row: said for row, said in reviews.last_words(out).items() if said.verdict in ("accept", "reject")}
    found: list[tuple[float, bool]] = []
    for batch in parquet.ParquetFile(path, memory_map=True).iter_batches(columns=COLUMNS):
        for row in batch.filter(compute.is_in(batch["id"], pa.array(words, pa.string()))).to_pylist():
            found += _told(words[row["id"]], row)
    scores, right = (np.array([one[i] for one in found]) for i in range(2))
    return scores.astype(float), right.astype(bool)


def _told(said: Review, row: dict) -> list[tuple[float, bool]]:
    return [
        (row[f"score_{name}"], said.verdict == "accept")
        for name in ("web", "synthetic")
        if said.which in (None, name) and row[f"score_{name}"] is not None and said.text in (None, row[f"{name}_text"])
    ]
