"""Attention over heads: one kernel choice, one mask rule, and the projections that BLIP's towers share.

Shapes: B rows, H heads, L queries, S keys, D width, d = D / H.
"""

import math
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from capfilt.blocks.linear import Linear
from capfilt.blocks.packed_rows import PackedRows, Run

Heads = Float[Tensor, "b h l d"]
KeysValues = tuple[Tensor, Tensor]
Seen = KeysValues | Tensor  # an image's keys and values, or its tokens where those are not worth making (`absorbed`)
EVEN = 16  # keys; other lengths miss the fast paths of bf16 matmuls and softmax on a CPU
MANY = 64  # queries; from here on evening out costs less than it gains
BLOCK = 200  # queries


def plain(q: Tensor) -> bool:
    """Whether plain matmuls beat torch's fused kernel (docs/numbers.md, "kernels").

    On a CPU they do in bf16 and, where no gradients are asked for, with few queries. Compiled for a CPU and any length,
    the fused kernel's backward pass fails in torch 2.13.
    """
    if q.device.type != "cpu":
        return False
    few = q.shape[-2] < MANY and not torch.is_grad_enabled()
    return few or q.dtype == torch.bfloat16 or torch.compiler.is_compiling()


def attend(
    q: Float[Tensor, "b h l d"],
    k: Float[Tensor, "b h s d"],
    v: Float[Tensor, "b h s d"],
    bias: Tensor | None = None,
    dropout: float = 0.0,
) -> Float[Tensor, "b h l d"]:
    """softmax(q·k / sqrt(d) + bias)·v; `bias` is added to the logits and broadcasts over (B, H, L, S)."""
    if bias is not None:
        bias = bias.to(q.dtype)
    if plain(q):
        return _by_matmuls(q * (1 / math.sqrt(q.shape[-1])), k, v, bias, dropout)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=dropout)


def _by_matmuls(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, dropout: float) -> Tensor:
    """q comes scaled. For use, many queries go in blocks, so that their probabilities stay in the cache."""
    if torch.is_grad_enabled() or q.shape[-2] < MANY:
        logits = torch.matmul(q, k.transpose(-2, -1))
        probabilities = (logits if bias is None else logits + bias).softmax(dim=-1)
        return torch.matmul(F.dropout(probabilities, dropout, training=dropout > 0), v)
    keys, gap = k.shape[-2], -k.shape[-2] % EVEN
    k, v = F.pad(k, (0, 0, 0, gap)).transpose(-2, -1), F.pad(v, (0, 0, 0, gap))
    answers = []
    for start in range(0, q.shape[-2], BLOCK):
        logits = torch.matmul(q[..., start : start + BLOCK, :], k)
        logits[..., keys:] = -math.inf
        if bias is not None:
            logits[..., :keys] += bias if bias.shape[-2] == 1 else bias[..., start : start + BLOCK, :]
        answers.append(torch.matmul(logits.softmax(dim=-1), v))
    return torch.cat(answers, dim=-2)


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


@runtime_checkable
class Past(Protocol):
    """What texts have said, as keys and values of every layer; a step adds to it layer by layer.

    images: B; every image has equally many texts. length: positions said, by all rows or by each. bias: (B, 1, T·L, S),
    which of the S keys each of an image's new positions sees; None where it is all.
    """

    images: int
    bias: Tensor | None

    @property
    def length(self) -> int | Tensor: ...

    def open(self, rows: int, length: int) -> None:
        """A step of T·B rows and L positions begins. Only the first may have L > 1, and then T is 1."""
        ...

    def add(self, layer: int, keys: Heads, values: Heads) -> KeysValues:
        """Takes in a layer's new keys and values (B, H, T·L, d); returns all of them so far (B, H, S, d)."""
        ...

    def close(self) -> None:
        """The step's last layer is done."""
        ...


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
            q = self.qkv.part(x[:, :1], 0, width)
            k, v = self.qkv.part(x, width, 3 * width).chunk(2, dim=-1)
            bias = None if bias is None else bias[:, :, :1]
        else:
            q, k, v = self.qkv(x).chunk(3, dim=-1)
        q, k, v = (split_heads(part, self.heads) for part in (q, k, v))
        return self.out(merge_heads(attend(q, k, v, bias, self.dropout if self.training else 0.0)))

    def packed(self, x: Float[Tensor, "p d"], rows: PackedRows, bias: Tensor | None, first_only: bool) -> Tensor:
        """Texts one behind another: (P, D) → (P, D), or (R, D): their first positions. For use, not for training."""
        q, k, v = (split_heads(part, self.heads) for part in rows.apart(self.qkv(x)).chunk(3, dim=-1))
        answer = merge_heads(attend(q[:, :, :1] if first_only else q, k, v, bias))
        return self.out(answer[:, 0] if first_only else rows.together(answer))

    def step(self, x: Float[Tensor, "r l d"], past: Past, layer: int) -> Float[Tensor, "r l d"]:
        """Goes on with texts: new positions x (T·B rows, row t·B + b is text t of image b) against all their past."""
        q, k, v = (side_by_side(split_heads(part, self.heads), past.images) for part in self.qkv(x).chunk(3, dim=-1))
        answer = attend(q, *past.add(layer, k, v), past.bias)
        return self.out(merge_heads(one_below_another(answer, len(x) // past.images)))


class CrossAttention(nn.Module):
    """Text looks at an image. The image side is projected once (`project`) and serves every text that looks at it."""

    def __init__(self, width: int, seen_width: int, heads: int, dropout: float = 0.0):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.q = Linear(width, width)
        self.kv = Linear(seen_width, 2 * width)
        self.out = Linear(width, width)

    def project(self, seen: Float[Tensor, "b n e"]) -> KeysValues:
        """Image tokens → keys and values, each (B, H, N, d)."""
        k, v = (split_heads(part, self.heads) for part in self.kv(seen).chunk(2, dim=-1))
        if torch.is_grad_enabled():
            return k, v
        return k.contiguous(), v.contiguous()  # they will be asked again and again

    def forward(
        self, x: Float[Tensor, "r l d"], own: Seen, far: Seen | None = None, bias: Tensor | None = None
    ) -> Tensor:
        """R text rows over B images, projected or as tokens; R a multiple of B.

        Without `far`, row i looks at image i mod B: rows of one image are laid side by side as queries, so that nothing
        of it is copied. With `far`, R = 3B (true pairs; wrong images; wrong texts), and the middle third looks there.
        `bias` (B, 1, 1, N) hides what only pads `own`.
        """
        q = split_heads(self.q(x), self.heads)
        if far is None:
            return self.out(merge_heads(self._seen(q, own, bias)))
        third = len(q) // 3
        near = self._seen(torch.cat((q[:third], q[2 * third :])), own)
        middle = self._seen(q[third : 2 * third], far)
        return self.out(merge_heads(torch.cat((near[:third], middle, near[third:]))))

    def packed(self, x: Float[Tensor, "p d"], seen: Seen, runs: Sequence[Run]) -> Float[Tensor, "p d"]:
        """Rows one behind another, all of one image side by side. For use, not for training."""
        q = self.q(x).unflatten(-1, (self.heads, -1)).transpose(0, 1)
        if isinstance(seen, Tensor):
            answer = self.absorbed(q, seen, runs)
        else:
            k, v = seen
            parts = [attend(_by_image(q, run), k[run.images], v[run.images]) for run in runs]
            answer = torch.cat([part.transpose(0, 1).flatten(1, 2) for part in parts], dim=1)
        return self.out(answer.transpose(0, 1).flatten(1))

    def _seen(self, q: Heads, seen: Seen, bias: Tensor | None = None) -> Heads:
        images = len(seen) if isinstance(seen, Tensor) else len(seen[0])
        asked = side_by_side(q, images)
        if isinstance(seen, Tensor):
            every = Run(images, slice(None), slice(None))
            answer = self.absorbed(asked.transpose(0, 1).flatten(1, 2), seen, [every], bias)
            answer = _by_image(answer, every)
        else:
            answer = attend(asked, *seen, bias, self.dropout if self.training else 0.0)
        return one_below_another(answer, len(q) // images)

    def absorbed(
        self,
        q: Float[Tensor, "h p d"],
        tokens: Float[Tensor, "b n e"],
        runs: Sequence[Run],
        bias: Tensor | None = None,
    ) -> Float[Tensor, "h p d"]:
        """Attention over image tokens whose keys and values are never made: q·(W x) = (Wᵀ q)·x.

        Cheaper where an image meets few queries (see `absorbing_pays`). Without dropout: for use, not for training.
        `bias` (B, 1, 1, N) hides what only pads.
        """
        h, _, d = q.shape
        keys, values = self.kv.weight.view(2, h, d, -1)
        asked = torch.bmm(q * (1 / math.sqrt(d)), keys)
        found = torch.empty_like(asked)  # without the keys' bias: softmax does not see what all of a row share
        for run in runs:
            image = tokens[run.images]
            logits = torch.bmm(_by_image(asked, run).flatten(1, 2), image.mT)
            if bias is not None:
                logits = logits + bias[run.images, 0].to(logits.dtype)
            of_run = torch.bmm(logits.softmax(dim=-1), image).unflatten(1, (h, -1))
            _by_image(found, run).copy_(of_run)
        return torch.baddbmm(self.kv.bias[h * d :].view(h, 1, d), found, values.mT)


def _by_image(x: Float[Tensor, "h p d"], run: Run) -> Float[Tensor, "b h q d"]:
    """A run's rows, an image's as one row of queries; a view."""
    return x[:, run.rows].unflatten(1, (run.count, -1)).transpose(0, 1)


def absorbing_pays(queries: int, tokens: int, seen_width: int, width: int, heads: int) -> bool:
    """Whether an image of so many tokens that meets so many queries in all is better left unprojected.

    By multiply-adds: keys and values cost tokens · 2 · seen_width · width once, then 2 · tokens · width a query;
    absorbed, a query costs 2 · heads · seen_width · (tokens + width / heads). They are even at 62 queries for
    ViT-B/384; with thinner matrices to multiply, absorbed ones fall behind at three quarters of that.
    """
    more = heads * seen_width * (tokens + width // heads) - tokens * width
    return 4 * queries * more < 3 * tokens * seen_width * width


def side_by_side(x: Float[Tensor, "r h l d"], images: int) -> Float[Tensor, "b h q d"]:
    """Rows T·B, image b's texts at b, b + B, ... → (B, H, T·L, d): an image's texts as one row of queries."""
    if len(x) == images:
        return x
    times, (_, heads, length, size) = len(x) // images, x.shape
    return x.reshape(times, images, heads, length, size).permute(1, 2, 0, 3, 4).flatten(2, 3)


def one_below_another(x: Float[Tensor, "b h q d"], times: int) -> Float[Tensor, "r h l d"]:
    """The way back: (B, H, T·L, d) → (T·B, H, L, d)."""
    if times == 1:
        return x
    images, heads, length, size = x.shape
    return x.reshape(images, heads, times, length // times, size).permute(2, 0, 1, 3, 4).flatten(0, 1)
