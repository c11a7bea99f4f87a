"""Penalty, ban, filters and the draw, against numbers worked out by hand."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from capfilt.predict.sampling import nucleus, penalised, pick, without


def test_the_penalty_moves_seen_words_down_whatever_their_sign_and_only_once():
    scores = torch.tensor([[2.0, -2.0, 0.5, -0.5]])
    found = penalised(scores, torch.tensor([[0, 1, 1, 0]]), 2.0)
    assert found.tolist() == [[1.0, -4.0, 0.5, -0.5]]
    assert scores.tolist() == [[2.0, -2.0, 0.5, -0.5]]  # the model's own logits stay as they are


def test_a_forbidden_word_is_impossible():
    assert without(torch.zeros(1, 3), 1).tolist() == [[0.0, -math.inf, 0.0]]


def test_the_word_that_crosses_top_p_is_kept_and_the_rest_sums_to_one():
    scores = torch.tensor([[0.1, 0.5, 0.3, 0.1]]).log()
    ids, probabilities = nucleus(scores, top_p=0.6)
    assert ids[0, :2].tolist() == [1, 2]
    assert probabilities[0].tolist() == pytest.approx([0.625, 0.375, 0, 0])


def test_top_k_comes_before_top_p():
    scores = torch.tensor([[0.4, 0.3, 0.2, 0.1]]).log()
    # of two words left, the first alone has 4/7 = .57 > .5, though it has but .4 of all four
    ids, probabilities = nucleus(scores, top_k=2, top_p=0.5)
    assert ids.tolist() == [[0, 1]] and probabilities.tolist() == [[1.0, 0.0]]


def test_temperature_comes_before_the_filters():
    scores = torch.tensor([[0.4, 0.3, 0.2, 0.1]]).log()
    _, probabilities = nucleus(scores, top_p=0.5, temperature=0.5)  # .16 .09 .04 .01 of .3: the first has .53
    assert probabilities.tolist() == [[1.0, 0.0, 0.0, 0.0]]


@pytest.mark.parametrize(("uniform", "word"), [(0.0, 7), (0.4999, 7), (0.5, 5), (0.7499, 5), (0.75, 3), (0.999999, 3)])
def test_the_draw_takes_the_word_whose_share_holds_the_number(uniform: float, word: int):
    ids, probabilities = torch.tensor([[7, 5, 3, 1]]), torch.tensor([[0.5, 0.25, 0.25, 0.0]])
    assert pick(ids, probabilities, torch.tensor([uniform])).item() == word


@given(st.lists(st.floats(-20, 20, width=32), min_size=2, max_size=12), st.floats(0.05, 1), st.floats(0, 0.999999))
@settings(max_examples=50, deadline=None)
def test_what_is_drawn_was_never_filtered_out(scores: list[float], top_p: float, uniform: float):
    ids, probabilities = nucleus(torch.tensor([scores]), 0, top_p)
    word = pick(ids, probabilities, torch.tensor([uniform], dtype=torch.float64))
    assert probabilities[ids == word].item() > 0
    assert probabilities.sum().item() == pytest.approx(1, abs=1e-5)
    kept = torch.tensor([scores]).softmax(-1).gather(1, ids)[probabilities > 0]
    assert kept.sum() >= top_p - 1e-5  # enough words, and no fewer would do
    assert kept.sum() - kept.min() <= top_p + 1e-5
