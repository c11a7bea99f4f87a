"""How gradients are put together for the way between processes; tests/train has the processes themselves."""

import torch

from capfilt.ranks import ALONE, messages


def test_gradients_travel_in_order_and_in_bounds():
    grads = [torch.zeros(n) for n in (3, 1, 2, 9, 1)]  # of 4 bytes each
    cut = messages(grads, 16)
    assert [[len(g) for g in message] for message in cut] == [[3, 1], [2], [9], [1]], "one too large goes alone"
    assert all(a is b for a, b in zip((g for message in cut for g in message), grads, strict=True))
    assert messages([], 16) == []


def test_alone_nothing_changes():
    x = torch.ones(3)
    assert ALONE.gather(x) is x and ALONE.sum(x) is x
    assert ALONE.most(2.5) == 2.5 and ALONE.any(True) and not ALONE.any(False)
