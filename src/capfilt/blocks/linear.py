"""One linear map, four ways to hold its matrix: as it is trained, and ready for use in fp32, bf16 or int8.

A map that is ready for use takes rows in any precision and rounds them itself; between maps everything else (residuals,
norms, softmax) stays in what it is given. docs/numbers.md, "speed", has what each way gains.

Shapes: D width in, E width out.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

Precision = Literal["fp32", "bf16", "int8"]
ROWS = 64  # the number of rows that oneDNN lays a matrix out for; it hardly matters (docs/numbers.md, "kernels")
After = tuple[str, list[float], str]  # what oneDNN does on the way out: its name, numbers and kind
NOTHING: After = ("none", [], "")
GELU: After = ("gelu", [], "none")
WHOLE = 1.5 * 2**23
LEVELS = 254  # of an unsigned byte, and one that rounding may need


class Linear(nn.Linear):
    """`nn.Linear`, with GELU behind it where asked, and parts of its rows."""

    def forward(self, input: Float[Tensor, "*n d"], gelu: bool = False) -> Float[Tensor, "*n e"]:
        """(..., D) → (..., E)."""
        y = F.linear(input, self.weight, self.bias)
        return F.gelu(y) if gelu else y

    def part(self, x: Float[Tensor, "*n d"], start: int, stop: int) -> Float[Tensor, "*n p"]:
        """Columns start to stop of the answer alone."""
        return F.linear(x, self.weight[start:stop], self.bias[start:stop])


class InUse(nn.Module):
    """A matrix that is ready for use."""

    def part(self, x: Float[Tensor, "*n d"], start: int, stop: int) -> Float[Tensor, "*n p"]:
        """Columns start to stop of the answer alone."""
        return self(x)[..., start:stop]


class Ready(InUse):
    """A matrix (E, D) held in `dtype` as it is: what an accelerator wants, and what works everywhere."""

    def __init__(self, weight: Float[Tensor, "e d"], bias: Float[Tensor, "e"], dtype: torch.dtype):
        super().__init__()
        self.dtype, self.bias = dtype, bias.detach().to(dtype)
        self.weight = weight.detach().to(dtype)

    def forward(self, x: Float[Tensor, "*n d"], gelu: bool = False) -> Float[Tensor, "*n e"]:
        """(..., D) in any precision → (..., E) in its own."""
        y = F.linear(x.to(self.dtype), self.weight, self.bias)
        return F.gelu(y) if gelu else y


class Packed(Ready):
    """The same in the layout of oneDNN, which does GELU on the way out: as fast as a CPU multiplies."""

    def __init__(self, weight: Float[Tensor, "e d"], bias: Float[Tensor, "e"], dtype: torch.dtype, plain: bool = False):
        """plain: keep the matrix as it is too, for those who multiply with parts of it."""
        super().__init__(weight, bias, dtype)
        self.packed = torch.ops.mkldnn._reorder_linear_weight(self.weight.contiguous(), ROWS)
        if not plain:
            del self.weight

    def forward(self, x: Float[Tensor, "*n d"], gelu: bool = False) -> Float[Tensor, "*n e"]:
        """(..., D) in any precision → (..., E) in its own."""
        x = x.to(self.dtype)
        return torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, *(GELU if gelu else NOTHING))


class Packed8(InUse):
    """Signed bytes, a scale for each of E rows; what is multiplied is rounded to 254 levels between its extremes.

    The levels hang on all that is in one call: call it with one image's rows, or answers depend on the company.
    """

    def __init__(self, weight: Float[Tensor, "e d"], bias: Float[Tensor, "e"], dtype: torch.dtype):
        """dtype: of the answer."""
        super().__init__()
        weight = weight.detach().float()
        self.dtype, self.bias = dtype, bias.detach().float()
        self.scale = weight.abs().amax(dim=1).clamp(min=1e-12) / 127
        self.zero = torch.zeros(len(weight), dtype=torch.long)
        levels = (weight / self.scale[:, None]).round().to(torch.int8)
        self.packed = torch.ops.onednn.qlinear_prepack(levels, None)

    def forward(self, x: Float[Tensor, "*n d"], gelu: bool = False) -> Float[Tensor, "*n e"]:
        """(..., D) in any precision → (..., E) in its own."""
        low, high = (float(extreme) for extreme in x.aminmax())
        low, high = min(low, 0.0), max(high, 0.0)
        scale = max(high - low, 1e-12) / LEVELS
        zero = round(-low / scale)
        # Torch is slow at rounding to bytes; next to 1.5 * 2^23 a float's last byte is the whole number nearest to it.
        levels = torch.add(torch.tensor(zero + WHOLE), x.float(), alpha=1 / scale).view(torch.int32).to(torch.uint8)
        return torch.ops.onednn.qlinear_pointwise(
            levels,
            scale,
            zero,
            self.packed,
            self.scale,
            self.zero,
            self.bias,
            1.0,
            0,
            torch.float32 if gelu else self.dtype,  # what GELU gives is rounded to bytes next, from fp32
            *(GELU if gelu else NOTHING),
        )
