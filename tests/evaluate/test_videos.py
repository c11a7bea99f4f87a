"""Clips found by a sentence: recall and median rank by hand."""

import numpy as np
import pytest

from capfilt.errors import DataError
from capfilt.evaluate.videos import score_videos


def test_by_hand():
    scores = -np.tile(np.arange(20.0), (4, 1))
    found = score_videos(scores, np.array([0, 3, 7, 19]))
    assert found.ranks.tolist() == [1, 4, 8, 20]
    assert found.summary() == {"r1": 0.25, "r5": 0.5, "r10": 0.75, "median_rank": 6}


def test_clips_with_several_texts_and_ties():
    scores = np.array([[0.1, 0.9], [0.8, 0.2], [0.5, 0.5]])
    found = score_videos(scores, np.array([1, 1, 1]))
    assert found.ranks.tolist() == [1, 2, 2]  # the tie goes against us


def test_wrong_input():
    with pytest.raises(DataError, match="there are 2 candidates"):
        score_videos(np.ones((1, 2)), np.array([2]))
    with pytest.raises(DataError, match="no query"):
        score_videos(np.ones((0, 2)), np.ones(0, int))
