"""Penalty, ban, filters and the draw, against numbers worked out by hand."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from capfilt.predict.sampling import nucleus, penalised, pick, unrepeated, unsaid, without


def test_the_penalty_moves_seen_words_down_whatever_their_sign_and_only_once():
    scores = torch.tensor([[2.0, -2.0, 0.5, -0.5]])
    found = penalised(scores, torch.tensor([[0, 1, 1, 0]]), 2.0)
    assert found.tolist() == [[1.0, -4.0, 0.5, -0.5]]
    assert scores.tolist() == [[2.0, -2.0, 0.5, -0.5]]  # the model's own logits stay as they are


def test_a_forbidden_word_is_impossible():
    scores = torch.zeros(1, 3)
    assert without(scores, 1).tolist() == [[0.0, -math.inf, 0.0]]
    assert scores.tolist() == [[0.0, 0.0, 0.0]]


def impossible(scores: torch.Tensor) -> list[list[int]]:
    return [[word for word, score in enumerate(row) if score == -math.inf] for row in scores.tolist()]


def test_what_would_repeat_is_impossible():
    scores, seen = torch.randn(2, 5), torch.tensor([[1, 2, 1, 2, 1], [3, 3, 4, 0, 3]])
    assert impossible(unrepeated(scores, seen, 1)) == [[1, 2], [0, 3, 4]]  # whatever was seen
    assert impossible(unrepeated(scores, seen, 2)) == [[2], [3, 4]]  # what has followed the last id
    assert impossible(unrepeated(scores, seen, 3)) == [[2], []]  # 1 2 1 would begin again; 0 3 has come once
    assert impossible(unrepeated(scores, seen, 4)) == [[2], []]
    assert torch.equal(unrepeated(scores, seen, 5), scores) and torch.equal(unrepeated(scores, seen, 9), scores)


def test_a_word_that_followed_once_is_impossible_even_where_another_followed_too():
    found = unrepeated(torch.zeros(1, 4), torch.tensor([[1, 3, 2, 3, 1]]), 2)
    assert impossible(found) == [[3]]  # 3 stands behind 1, and behind 2, which does not matter here


def test_the_last_id_of_a_banned_sequence_is_impossible_where_the_others_were_said():
    scores, said = torch.randn(3, 5), torch.tensor([[0, 1, 2], [1, 2, 3], [2, 1, 2]])
    assert impossible(unsaid(scores, said, torch.tensor([[4], [0]]))) == [[0, 4]] * 3
    assert impossible(unsaid(scores, said, torch.tensor([[2, 4], [1, 3], [3, 3]]))) == [[4], [3], [4]]
    assert impossible(unsaid(scores, said, torch.tensor([[0, 1, 2, 3]]))) == [[3], [], []]
    longer = torch.tensor([[0, 1, 2, 3, 4]])
    assert torch.equal(unsaid(scores, said, longer), scores)  # nothing so long was begun
    assert impossible(unsaid(scores, said[:, :0], torch.tensor([[4]]))) == [[4]] * 3


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
