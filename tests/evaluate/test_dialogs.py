"""Ranking of dialog answers: sparse and dense numbers by hand, ties against us."""

import math

import numpy as np
import pytest

from capfilt.errors import DataError
from capfilt.evaluate.dialogs import ndcg, score_dialogs


def test_sparse_by_hand():
    scores = np.array([[0.1, 0.9, 0.5], [0.3, 0.2, 0.1], [0.1, 0.2, 0.3]])
    found = score_dialogs(scores, np.array([1, 0, 0]))
    assert found.ranks.tolist() == [1, 1, 3]
    assert found.summary() == pytest.approx(
        {"mrr": (1 + 1 + 1 / 3) / 3, "r1": 2 / 3, "r5": 1, "r10": 1, "mean_rank": 5 / 3}
    )


def test_recalls_of_a_hundred_options():
    scores = -np.tile(np.arange(100.0), (4, 1))
    found = score_dialogs(scores, np.array([0, 4, 9, 99]))
    assert (found.r1, found.r5, found.r10, found.mean_rank) == (0.25, 0.5, 0.75, (1 + 5 + 10 + 100) / 4)


def test_one_score_for_all_is_the_worst_rank():
    assert score_dialogs(np.zeros((2, 100)), np.array([0, 99])).ranks.tolist() == [100, 100]
    relevance = np.array([[0.0, 0.0, 1.0, 0.5]])
    assert ndcg(np.zeros((1, 4)), relevance).tolist() == [0]  # k = 2, and the two that do not fit stand first


def test_ndcg_by_hand():
    relevance = np.array([[0.5, 0.0, 1.0, 0.25]])
    best = 1 + 0.5 / math.log2(3) + 0.25 / 2
    assert ndcg(np.array([[3.0, 1.0, 4.0, 2.0]]), relevance).tolist() == pytest.approx([1])
    # The order is 1 (0), 0 (0.5), 2 (1), 3; of the four options three are relevant, so three count.
    found = ndcg(np.array([[3.0, 4.0, 2.0, 1.0]]), relevance)
    assert found.tolist() == pytest.approx([(0.5 / math.log2(3) + 1 / 2) / best])


def test_ndcg_counts_as_many_places_as_there_are_relevant_options():
    relevance = np.array([[0.0, 1.0, 0.0], [0.2, 0.4, 0.6]])
    scores = np.array([[3.0, 2.0, 1.0], [1.0, 2.0, 3.0]])
    assert ndcg(scores, relevance).tolist() == pytest.approx([0, 1])


def test_wrong_input():
    scores, relevance = np.ones((2, 3)), np.eye(3)[:2]
    with pytest.raises(DataError, match="NaN"):
        ndcg(scores * np.nan, relevance)
    with pytest.raises(DataError, match="1 of 2 rounds have no relevant option"):
        ndcg(scores, relevance * [[1], [0]])
    with pytest.raises(DataError, match="negative or NaN"):
        ndcg(scores, -relevance)
    with pytest.raises(DataError, match="there are 3 candidates"):
        score_dialogs(scores, np.array([0, 3]))
    with pytest.raises(DataError, match="no query"):
        score_dialogs(np.ones((0, 3)), np.ones(0, int))
