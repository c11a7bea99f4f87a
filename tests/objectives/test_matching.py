"""ITM: negatives that are never right, never NaN, and hang on the row's own number."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from capfilt.errors import BatchError
from capfilt.objectives.matching import draw, matching, negative_odds


@given(st.integers(2, 9), st.integers(0, 10**6), st.sampled_from([1.0, 1e3, 1e6]))
def test_no_right_answer_is_ever_drawn(size, seed, scale):
    g = torch.Generator().manual_seed(seed)
    sim = torch.randn(size, size, generator=g) * scale
    same = torch.eye(size, dtype=torch.bool) | (torch.rand(size, size, generator=g) < 0.4)
    for floor in (0.0, 1e-4):
        odds = negative_odds(sim, same, floor)
        assert torch.isfinite(odds).all()
        column, valid = draw(odds, torch.rand(size, generator=g))
        assert torch.equal(valid, ~same.all(dim=1))
        assert not same[torch.arange(size), column][valid].any()


def test_underflowing_odds_become_even():
    sim = torch.tensor([[1e9, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    odds = negative_odds(sim, torch.eye(3, dtype=torch.bool), 0.0)
    assert odds[0].tolist() == [0.0, 1.0, 1.0]


def test_two_pairs_are_enough_and_one_is_not():
    odds = negative_odds(torch.zeros(2, 2), torch.eye(2, dtype=torch.bool))
    assert draw(odds, torch.tensor([0.999999, 0.0]))[0].tolist() == [1, 0]
    with pytest.raises(BatchError, match="at least 2 pairs, the batch has 1"):
        negative_odds(torch.zeros(1, 1), torch.eye(1, dtype=torch.bool))


def test_equal_captions_leave_no_negative_and_do_not_count():
    same = torch.ones(2, 2, dtype=torch.bool)
    _, valid = draw(negative_odds(torch.zeros(2, 2), same), torch.rand(2))
    assert not valid.any()
    logits = torch.tensor([[0.0, 3.0], [0.0, 3.0], [5.0, 0.0]])
    labels = torch.tensor([1, 1, 0])
    counted = torch.tensor([True, True, False])
    assert matching(logits, labels, counted) == pytest.approx(matching(logits[:2], labels[:2]).item())
    assert matching(logits, labels, torch.zeros(3, dtype=torch.bool)) == 0


def test_draws_follow_the_odds():
    odds = torch.tensor([[0.0, 1.0, 3.0]]).repeat(8000, 1)
    column, _ = draw(odds, torch.rand(8000, generator=torch.Generator().manual_seed(0)))
    assert not (column == 0).any()
    assert (column == 2).float().mean().item() == pytest.approx(0.75, abs=0.02)


def test_a_draw_hangs_on_its_own_row():
    odds, uniform = torch.rand(6, 5), torch.rand(6)
    whole, _ = draw(odds, uniform)
    parts = torch.cat([draw(odds[i : i + 1], uniform[i : i + 1])[0] for i in range(6)])
    assert torch.equal(whole, parts)
