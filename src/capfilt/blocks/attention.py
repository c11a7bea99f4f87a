"""Attention over heads: one kernel choice, one mask rule, and the projections that BLIP's towers share.

Shapes: B rows, H heads, L queries, S keys, D width, d = D / H.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from capfilt.blocks.linear import Linear

Heads = Float[Tensor, "b h l d"]
KeysValues = tuple[Tensor, Tensor]


def plain(q: Tensor) -> bool:
    """Whether plain matmuls beat torch's fused kernel: in bf16 on a CPU (docs/numbers.md, "attention kernel").

    Compiled for a CPU and any length, the fused kernel's backward pass fails in torch 2.13.
    """
    return q.device.type == "cpu" and (q.dtype == torch.bfloat16 or torch.compiler.is_compiling())


def attend(
    q: Float[Tensor, "b h l d"],
    k: Float[Tensor, "b h s d"],
    v: Float[Tensor, "b h s d"],
    bias: Tensor | None = None,
    dropout: float = 0.0,
) -> Float[Tensor, "b h l d"]:
    """softmax(q·k / sqrt(d) + bias)·v; `bias` is added to the logits and broadcasts over (B, H, L, S)."""
    if plain(q):
        logits = torch.matmul(q * (1 / math.sqrt(q.shape[-1])), k.transpose(-2, -1))
        probabilities = (logits if bias is None else logits + bias).softmax(dim=-1)
        return torch.matmul(F.dropout(probabilities, dropout, training=dropout > 0), v)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=dropout)


def mask_bias(mask: Int[Tensor, "b s"], causal: bool, dtype: torch.dtype) -> Float[Tensor, "b 1 q s"]:
    """The one mask rule: 0 where a query may look, -inf where not.

    mask:   1 at tokens, 0 at padding; position 0 is always a token, so no row is wholly masked.
    causal: also hide what comes later; the result is then (B, 1, S, S), else (B, 1, 1, S).
    """
    allowed = mask[:, None, None, :].bool()
    if causal:
        length = mask.shape[1]
        allowed = allowed & torch.ones(length, length, dtype=torch.bool, device=mask.device).tril()
    return torch.zeros(allowed.shape, dtype=dtype, device=mask.device).masked_fill(~allowed, -math.inf)


def split_heads(x: Float[Tensor, "b l d"], heads: int) -> Float[Tensor, "b h l e"]:
    """(B, L, D) → (B, H, L, D / H)."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def merge_heads(x: Float[Tensor, "b h l e"]) -> Float[Tensor, "b l d"]:
    """(B, H, L, d) → (B, L, D)."""
    return x.transpose(1, 2).flatten(2)


class SelfAttention(nn.Module):
    """Multi-head self-attention with one fused projection; rows of `qkv` are q, then k, then v."""

    def __init__(self, width: int, heads: int, dropout: float = 0.0):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.qkv = Linear(width, 3 * width)
        self.out = Linear(width, width)

    def forward(self, x: Float[Tensor, "b l d"], bias: Tensor | None = None, first_only: bool = False) -> Tensor:
        """(B, L, D) → (B, L, D), or (B, 1, D) when only the first position's answer is wanted."""
        if first_only:
            width = x.shape[-1]
            q = F.linear(x[:, :1], self.qkv.weight[:width], self.qkv.bias[:width])
            k, v = F.linear(x, self.qkv.weight[width:], self.qkv.bias[width:]).chunk(2, dim=-1)
            bias = None if bias is None else bias[:, :, :1]
        else:
            q, k, v = self.qkv(x).chunk(3, dim=-1)
        q, k, v = (split_heads(part, self.heads) for part in (q, k, v))
        return self.out(merge_heads(attend(q, k, v, bias, self.dropout if self.training else 0.0)))

    def step(
        self, x: Float[Tensor, "b l d"], cache: KeysValues | None, bias: Tensor | None = None
    ) -> tuple[Tensor, KeysValues]:
        """Continues a causal sequence: new positions x against all before. Returns (output, grown cache)."""
        q, k, v = (split_heads(part, self.heads) for part in self.qkv(x).chunk(3, dim=-1))
        if cache is not None:
            k, v = torch.cat((cache[0], k), dim=2), torch.cat((cache[1], v), dim=2)
        return self.out(merge_heads(attend(q, k, v, bias))), (k, v)


class CrossAttention(nn.Module):
    """Text looks at an image. The image side is projected once (`project`) and serves every text that looks at it."""

    def __init__(self, width: int, seen_width: int, heads: int, dropout: float = 0.0):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.q = Linear(width, width)
        self.kv = nn.Linear(seen_width, 2 * width)
        self.out = Linear(width, width)

    def project(self, seen: Float[Tensor, "b n e"]) -> KeysValues:
        """Image tokens → keys and values, each (B, H, N, d)."""
        k, v = self.kv(seen).chunk(2, dim=-1)
        return split_heads(k, self.heads), split_heads(v, self.heads)

    def forward(
        self, x: Float[Tensor, "r l d"], own: KeysValues, far: KeysValues | None = None, bias: Tensor | None = None
    ) -> Tensor:
        """R text rows over B projected images, R a multiple of B.

        Without `far`, row i looks at image i mod B: rows of one image are laid side by side as queries, so its keys and
        values are never copied. With `far`, R = 3B (true pairs; wrong images; wrong texts), and the middle third looks
        there. `bias` (B, 1, 1, N) hides what only pads `own`.
        """
        q = split_heads(self.q(x), self.heads)
        dropout = self.dropout if self.training else 0.0
        if far is None:
            return self.out(merge_heads(_grouped(q, own, dropout, bias)))
        third = len(q) // 3
        near = _grouped(torch.cat((q[:third], q[2 * third :])), own, dropout)
        middle = attend(q[third : 2 * third], *far, None, dropout)
        return self.out(merge_heads(torch.cat((near[:third], middle, near[third:]))))


def _grouped(q: Heads, seen: KeysValues, dropout: float, bias: Tensor | None = None) -> Heads:
    images = len(seen[0])
    if len(q) == images:
        return attend(q, *seen, bias, dropout)
    times, (_, heads, length, size) = len(q) // images, q.shape
    side_by_side = q.view(times, images, heads, length, size).permute(1, 2, 0, 3, 4).flatten(2, 3)
    answer = attend(side_by_side, *seen, bias, dropout)
    return answer.view(images, heads, times, length, size).permute(2, 0, 1, 3, 4).flatten(0, 1)
