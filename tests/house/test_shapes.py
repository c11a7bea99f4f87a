"""The shape checks of conftest are awake: a wrong shape inside capfilt fails a test instead of broadcasting."""

import pytest
import torch
from jaxtyping import TypeCheckError

from capfilt.objectives.contrastive import soft_targets


def test_a_wrong_shape_is_caught():
    sim, positives = torch.zeros(3, 3), torch.eye(3, dtype=torch.bool)
    assert soft_targets(sim, positives, 0).shape == (3, 3)  # an int for a float is fine
    with pytest.raises(TypeCheckError):
        soft_targets(sim, positives[:1], 0.4)  # would broadcast in silence
