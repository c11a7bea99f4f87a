"""Accuracy and consistency of statements about images, by hand."""

import numpy as np
import pytest

from capfilt.data.annotations import Stated
from capfilt.errors import DataError
from capfilt.evaluate.statements import score_statements


def stated(name, group, label):
    return Stated("a.png", "b.png", "S", label, name, group)


FIVE = [
    stated("dev-1-0-0", "dev-1-0", True),
    stated("dev-1-1-0", "dev-1-0", False),
    stated("dev-1-0-1", "dev-1-1", True),
    stated("dev-2-0-0", "dev-2-0", False),
    stated("dev-2-3-0", "dev-2-0", True),
]


def test_by_hand():
    found = score_statements(FIVE, np.array([True, True, True, False, True]))
    assert found.right.tolist() == [True, False, True, True, True]
    assert found.summary() == pytest.approx({"accuracy": 4 / 5, "consistency": 2 / 3})


def test_wrong_input():
    with pytest.raises(DataError, match="5 of them and 4 verdicts"):
        score_statements(FIVE, np.ones(4, bool))
    with pytest.raises(DataError, match="0 of them and 0 verdicts"):
        score_statements([], np.ones(0, bool))
    with pytest.raises(DataError, match="1 of 2 have no label \\(first: 'x'\\)"):
        score_statements([FIVE[0], stated("x", "x", None)], np.ones(2, bool))
