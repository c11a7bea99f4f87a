"""LM: label smoothing in both rules, against sums written out."""

import pytest
import torch

from capfilt.objectives.language import IGNORED, next_labels, next_token


def test_labels_are_shifted_and_hide_padding_and_prompt():
    ids, mask = torch.tensor([[5, 7, 8, 3, 0]]), torch.tensor([[1, 1, 1, 1, 0]])
    assert next_labels(ids, mask).tolist() == [[7, 8, 3, IGNORED]]
    assert next_labels(ids, mask, prompt=2).tolist() == [[IGNORED, 8, 3, IGNORED]]


def test_smoothing_by_hand():
    logits, labels = torch.randn(3, 7), torch.tensor([2, 6, IGNORED])
    log = logits.log_softmax(dim=1)
    smooth, hard = -log.mean(dim=1), torch.stack([-log[0, 2], -log[1, 6]])
    modern = (0.9 * hard + 0.1 * smooth[:2]).mean()
    old = 0.9 * hard.mean() + 0.1 * smooth.mean()
    assert next_token(logits, labels).item() == pytest.approx(modern.item(), abs=1e-6)
    assert next_token(logits, labels, rule="torch110").item() == pytest.approx(old.item(), abs=1e-6)


def test_both_rules_agree_where_nothing_is_ignored():
    logits, labels = torch.randn(4, 7), torch.tensor([0, 1, 2, 3])
    assert next_token(logits, labels).item() == pytest.approx(
        next_token(logits, labels, rule="torch110").item(), abs=1e-6
    )


def test_nothing_to_predict_is_zero_not_nan():
    assert next_token(torch.randn(2, 5), torch.full((2,), IGNORED)).item() == 0
