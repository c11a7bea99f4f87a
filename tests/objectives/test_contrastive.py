"""ITC: numbers worked out by hand, the queue's wrap, the ramp."""

import math

import pytest
import torch

from capfilt.objectives.contrastive import alpha_at, contrastive, enqueue, positives_on_diagonal, soft_targets


def test_contrast_of_two_pairs_by_hand():
    sim = torch.tensor([[2.0, 0.0], [0.0, 2.0]])
    targets = soft_targets(sim, positives_on_diagonal(2, 2), 0.0)
    expected = math.log(math.exp(2) + 1) - 2
    assert contrastive(sim, sim, targets, targets).item() == pytest.approx(expected, abs=1e-6)


def test_soft_targets_mix_the_twins_opinion_and_share_equal_images():
    sim = torch.zeros(2, 4)
    positives = torch.tensor([[True, False, True, False], [False, True, False, False]])
    targets = soft_targets(sim, positives, 0.4)
    assert torch.allclose(targets[0], torch.tensor([0.4, 0.1, 0.4, 0.1]))
    assert torch.allclose(targets[1], torch.tensor([0.1, 0.7, 0.1, 0.1]))
    assert torch.equal(soft_targets(sim, positives, 0.0)[1], positives[1].float())


def test_alpha_ramps_to_its_value_and_stays():
    assert [alpha_at(s, 10) for s in (0, 5, 10, 99)] == pytest.approx([0.0, 0.2, 0.4, 0.4])
    assert alpha_at(0, 0) == 0.0


@pytest.mark.parametrize(("size", "count"), [(7, 3), (4, 4), (5, 12), (0, 3)])
def test_queue_of_any_length_holds_the_newest_rows(size, count):
    queue, pointer = torch.full((size, 1), -1.0), torch.zeros(1, dtype=torch.long)
    sent = []
    for start in (0, 100, 200):
        new = torch.arange(start, start + count, dtype=torch.float)[:, None]
        enqueue(queue, new, pointer)
        sent += new[:, 0].tolist()
    newest = set(sent[-size:]) if size else set()
    assert {v for v in queue[:, 0].tolist() if v >= 0} == newest
    assert int(pointer) == (len(sent) % size if size else 0)


def test_offset_positives_name_the_ranks_own_columns():
    assert positives_on_diagonal(2, 5, 2).int().tolist() == [[0, 0, 1, 0, 0], [0, 0, 0, 1, 0]]
