"""Every way to hold a matrix gives the same answers, as exactly as its precision allows."""

import pytest
import torch
import torch.nn.functional as F

from capfilt.blocks.linear import Linear, Packed, Packed8, Ready


@pytest.fixture
def layer():
    torch.manual_seed(0)
    return Linear(96, 160).requires_grad_(False)


@pytest.mark.parametrize("gelu", [False, True])
@pytest.mark.parametrize("shape", [(1, 96), (3, 96), (2, 37, 96)])
def test_all_ways_agree(layer, shape, gelu):
    x = torch.randn(shape)
    wanted = F.linear(x, layer.weight, layer.bias)
    wanted = F.gelu(wanted) if gelu else wanted
    assert torch.equal(layer(x, gelu), wanted)
    for way, off in (
        (Ready(layer.weight, layer.bias, torch.float32), 1e-6),
        (Ready(layer.weight, layer.bias, torch.bfloat16), 2e-2),
        (Packed(layer.weight, layer.bias, torch.float32), 1e-5),
        (Packed(layer.weight, layer.bias, torch.bfloat16), 2e-2),
        (Packed8(layer.weight, layer.bias, torch.float32), 5e-2),
    ):
        with torch.inference_mode():
            y = way(x, gelu)
        assert y.shape == wanted.shape and y.dtype == way.dtype
        assert (y.float() - wanted).abs().max() < off, way


def test_rounding_is_no_farther_than_it_must_be(layer):
    """Bytes: half a level of the input and of each weight, averaged over 96 products."""
    x = torch.rand(200, 96) * 5 - 1
    off = Packed8(layer.weight, layer.bias, torch.float32)(x) - layer(x)
    assert off.abs().mean() < 0.02 * layer(x).std()


def test_parts_are_columns(layer):
    x = torch.randn(5, 96)
    for way in (
        layer,
        Packed(layer.weight, layer.bias, torch.float32),
        Packed8(layer.weight, layer.bias, torch.float32),
    ):
        torch.testing.assert_close(way.part(x, 32, 96), way(x)[:, 32:96])


def test_packed_holds_its_matrix_once_unless_asked(layer):
    assert not hasattr(Packed(layer.weight, layer.bias, torch.float32), "weight")
    kept = Packed(layer.weight, layer.bias, torch.bfloat16, plain=True)
    assert torch.equal(kept.weight, layer.weight.bfloat16())


def test_bytes_of_zeros_stay_zero(layer):
    assert torch.allclose(Packed8(layer.weight, layer.bias, torch.float32)(torch.zeros(4, 96)), layer.bias, atol=1e-6)
