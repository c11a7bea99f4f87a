"""torch's linear map, but for a handful of rows on a CPU, where its product runs on one core, far below memory speed.

Turned around, weight times rows, the same product is 2 to 6 times faster in fp32 (docs/numbers.md, "few rows"). That is
the whole of a decoding step with three beams.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

FEW = range(2, 5)  # rows; from five on both ways cost the same, and a single row is a product of its own
LARGE = 2**18  # weights; below, the detour costs more than it saves


class Linear(nn.Linear):
    """`nn.Linear` through `linear`."""

    def forward(self, input: Float[Tensor, "*n d"]) -> Float[Tensor, "*n e"]:
        """(..., D) → (..., E)."""
        return linear(input, self.weight, self.bias)


def linear(x: Float[Tensor, "*n d"], weight: Float[Tensor, "e d"], bias: Tensor) -> Float[Tensor, "*n e"]:
    """(..., D) → (..., E), as `F.linear`."""
    if not _turned(x, weight):
        return F.linear(x, weight, bias)
    return torch.matmul(weight, x.flatten(0, -2).T).T.reshape(*x.shape[:-1], -1) + bias


def _turned(x: Tensor, weight: Tensor) -> bool:
    if x.device.type != "cpu" or torch.is_grad_enabled() or x.dtype != torch.float32 or weight.dtype != x.dtype:
        return False
    if torch.jit.is_tracing() or torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu"):
        return False
    return x.numel() // x.shape[-1] in FEW and weight.numel() >= LARGE
