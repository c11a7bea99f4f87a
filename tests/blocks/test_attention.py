"""Attention: both kernels say the same, masks hide what they should, shared keys equal copied ones."""

import pytest
import torch

from capfilt.blocks import attention
from capfilt.blocks.attention import CrossAttention, SelfAttention, absorbing_pays, attend, mask_bias
from capfilt.blocks.past import GrowingPast


@pytest.mark.parametrize("causal", [False, True])
def test_both_kernels_agree(monkeypatch, causal):
    q, k, v = (torch.randn(3, 2, 6, 4) for _ in range(3))
    bias = mask_bias(torch.tensor([[1] * 6, [1] * 4 + [0] * 2, [1] + [0] * 5]), causal, torch.float32)
    fused = attend(q, k, v, bias)
    monkeypatch.setattr(attention, "plain", lambda q: True)
    assert torch.allclose(attend(q, k, v, bias), fused, atol=1e-6)


def test_causal_states_do_not_know_the_future():
    block = SelfAttention(8, 2)
    x = torch.randn(1, 5, 8)
    bias = mask_bias(torch.ones(1, 5, dtype=torch.long), True, x.dtype)
    before = block(x, bias)[:, :3]
    x[:, 3:] += 1
    assert torch.allclose(before, block(x, bias)[:, :3], atol=1e-6)


def test_first_only_is_the_first_of_all():
    block = SelfAttention(8, 2)
    x, bias = torch.randn(2, 5, 8), mask_bias(torch.tensor([[1] * 5, [1] * 3 + [0] * 2]), False, torch.float32)
    assert torch.allclose(block(x, bias)[:, :1], block(x, bias, first_only=True), atol=1e-6)


def test_cached_steps_equal_one_pass():
    block = SelfAttention(8, 2)
    x = torch.randn(2, 5, 8)
    whole = block(x, mask_bias(torch.ones(2, 5, dtype=torch.long), True, x.dtype))
    past, steps = GrowingPast(2, x.device), []
    for i in range(5):
        past.open(2, 1)
        steps.append(block.step(x[:, i : i + 1], past, 0))
        past.close()
    assert torch.allclose(whole, torch.cat(steps, dim=1), atol=1e-6)


def test_rows_of_one_image_share_its_keys_exactly():
    block = CrossAttention(8, 6, 2)
    image, x = torch.randn(3, 7, 6), torch.randn(9, 4, 8)
    own = block.project(image)
    wrong = torch.tensor([2, 0, 1])
    copied = torch.cat((image, image[wrong], image))
    expected = block(x, block.project(copied))
    far = (own[0][wrong], own[1][wrong])
    assert torch.allclose(expected, block(x, own, far), atol=1e-6)
    assert torch.allclose(block(x, block.project(image.repeat(3, 1, 1))), block(x, own), atol=1e-6)


def test_absorbed_keys_and_values_say_the_same():
    block = CrossAttention(8, 6, 2)
    image, x = torch.randn(3, 7, 6), torch.randn(6, 4, 8)
    hidden = mask_bias(torch.tensor([[1] * 7, [1] * 5 + [0] * 2, [1] * 3 + [0] * 4]), False, torch.float32)
    for bias in (None, hidden):
        expected = block(x, block.project(image), bias=bias)
        assert torch.allclose(block(x, image, bias=bias), expected, atol=1e-6)


def test_absorbing_pays_where_an_image_meets_few_queries():
    base = (577, 768, 768, 12)
    assert absorbing_pays(46, *base) and not absorbing_pays(47, *base)


def test_blocks_of_queries_and_even_lengths_change_nothing(monkeypatch):
    monkeypatch.setattr(attention, "BLOCK", 32)
    q, k, v = torch.randn(2, 2, 70, 8), torch.randn(2, 2, 37, 8), torch.randn(2, 2, 37, 8)
    bias = mask_bias(torch.tensor([[1] * 37, [1] * 20 + [0] * 17]), False, torch.float32)
    rows = torch.zeros(2, 1, 70, 37).masked_fill(torch.rand(2, 1, 70, 37) < 0.3, -torch.inf)
    for hidden in (None, bias, rows):
        monkeypatch.setattr(attention, "plain", lambda q: False)
        expected = attend(q, k, v, hidden)
        monkeypatch.setattr(attention, "plain", lambda q: True)
        with torch.no_grad():
            assert torch.allclose(attend(q, k, v, hidden), expected, atol=1e-6)
