"""Rows beside the table (`--all`): the choices between two kernels that `blocks` makes, and torch.compile."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from capfilt.blocks import attention
from capfilt.blocks.linear import Packed
from capfilt.recipes.bench.steps import compiled, plain_attention
from capfilt.recipes.bench.work import Row, Work, need, same_numbers
from capfilt.runtime import generator

if TYPE_CHECKING:
    from capfilt.recipes.bench.peers import Shelf


def kernel(shelf: "Shelf", precision: str, keys: int) -> Work:
    """Attention by plain matmuls, against torch's fused kernel: forward and backward, 12 heads of 64."""
    need(precision)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    random = generator("bench", keys)
    q, k, v = (
        torch.randn(4096 // keys, keys, 12, 64, generator=random).to(dtype).transpose(1, 2).requires_grad_()
        for _ in range(3)
    )

    def attend(plain: bool) -> torch.Tensor:
        with plain_attention(plain):
            for _ in range(5):
                out = attention.attend(q, k, v)
                out.sum().backward()
        return out.detach()

    most = 1e-3 if precision == "fp32" else 0.05
    return Work(partial(attend, True), {"torch's fused attention": partial(attend, False)}, same_numbers(most))


def few_rows(shelf: "Shelf", rows: int, words: int) -> Work:
    """A few fp32 rows of 768 through packed matrices, against torch's linear map; the matrices are not in cache."""
    random = generator("bench", rows)
    weights = [torch.randn(words, 768, generator=random) for _ in range(max(2, 2**26 // (words * 768)))]
    x, bias = torch.randn(rows, 768, generator=random), torch.zeros(words)
    packed = [Packed(weight, bias, torch.float32) for weight in weights]
    plain = [partial(F.linear, weight=weight, bias=bias) for weight in weights]

    @torch.inference_mode()
    def through(maps: Sequence[Callable[[torch.Tensor], torch.Tensor]]) -> torch.Tensor:
        return [linear(x) for linear in maps][-1]

    return Work(partial(through, packed), {"torch's linear map": partial(through, plain)}, same_numbers(1e-3))


EXTRA: dict[str, Row] = {
    "step-demo-compiled": Row(None, compiled),
    **{
        f"attention-{precision}-{keys}-keys": Row(None, partial(kernel, precision=precision, keys=keys))
        for precision in ("fp32", "bf16")
        for keys in (16, 197)
    },
    **{
        f"linear-{rows}-rows-into-{words}": Row(None, partial(few_rows, rows=rows, words=words))
        for rows in (2, 3, 4)
        for words in (3072, 30524)
    },
}
