"""Pieces come back in order, each computed by one thread, and what is left over is not lost."""

import pytest
import torch

from capfilt.predict.workers import each


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_results_come_in_order_without_gradients(threads, count):
    weight = torch.ones(1, requires_grad=True)

    def work(piece):
        return piece * weight, torch.get_num_threads()

    with torch.inference_mode():
        found = each(work, [torch.tensor(float(i)) for i in range(count)])
    assert [int(value) for value, _ in found] == list(range(count))
    assert not any(value.requires_grad for value, _ in found)
    assert [n for _, n in found] == [1] * (count - count % 2) + [2] * (count % 2)


def test_an_error_reaches_the_caller(threads):
    def work(piece):
        raise ValueError(piece)

    with pytest.raises(ValueError, match="b"):
        each(work, ["b", "b"])
