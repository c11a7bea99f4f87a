"""Statements about images: how many are judged rightly, and how many sentences are on all of their images.

Source: NLVR (Suhr et al. 2017) and NLVR2 (Suhr et al., arXiv 1811.00491), accuracy and consistency of their evaluation
scripts. Values are shares in [0, 1]; papers print 100 times that.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool

from capfilt.data.annotations import Stated
from capfilt.errors import DataError


@dataclass(frozen=True)
class StatementScores:
    """accuracy: share of statements judged rightly. consistency: share of groups of which every statement is.

    right: (N,) bool in the order given.
    """

    accuracy: float
    consistency: float
    right: np.ndarray = field(repr=False)

    def summary(self) -> dict[str, float]:
        """Both shares by name."""
        return {"accuracy": self.accuracy, "consistency": self.consistency}


def score_statements(stated: Sequence[Stated], said: Bool[np.ndarray, "n"]) -> StatementScores:
    """Compares what a model said with the labels.

    Raises:
        DataError: no statement, another number of verdicts, or a statement whose label is kept back.
    """
    _check(stated, said)
    unknown = [statement.id for statement in stated if statement.label is None]
    if unknown:
        raise DataError(f"statements: {len(unknown)} of {len(stated)} have no label (first: {unknown[0]!r}).")
    right = said == np.array([statement.label for statement in stated])
    groups: dict[str, bool] = {}
    for statement, hit in zip(stated, right.tolist(), strict=True):
        groups[statement.group] = groups.get(statement.group, True) and hit
    return StatementScores(float(right.mean()), sum(groups.values()) / len(groups), right)


def _check(stated: Sequence[Stated], said: np.ndarray) -> None:
    if not len(stated) or len(stated) != len(said):
        raise DataError(f"statements: {len(stated)} of them and {len(said)} verdicts; one verdict each is needed.")
