"""The turned product gives what torch's gives, and is taken only where it pays."""

import pytest
import torch
import torch.nn.functional as F

from capfilt.blocks import linear as module
from capfilt.blocks.linear import Linear


@pytest.fixture
def layer() -> Linear:
    torch.manual_seed(0)
    return Linear(512, 768)


@pytest.mark.parametrize("shape", [(1, 1), (2, 1), (3, 1), (1, 4), (2, 2), (5, 1), (3, 7)])
def test_it_is_torchs_linear_map(layer: Linear, shape: tuple[int, int]):
    x = torch.randn(*shape, 512)
    with torch.inference_mode():
        assert module._turned(x, layer.weight) == (shape[0] * shape[1] in (2, 3, 4))
        got = layer(x)
    torch.testing.assert_close(got, F.linear(x, layer.weight, layer.bias), atol=1e-5, rtol=1e-5)
    assert got.shape == (*shape, 768)


def test_training_small_maps_and_lower_precision_go_the_usual_way(layer: Linear):
    x = torch.randn(3, 1, 512)
    assert not module._turned(x, layer.weight)  # gradients are on
    with torch.inference_mode():
        assert not module._turned(x.bfloat16(), layer.weight)
        assert not module._turned(x, layer.weight[:100])
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert not module._turned(x, layer.weight)
            assert layer(x).dtype == torch.bfloat16
