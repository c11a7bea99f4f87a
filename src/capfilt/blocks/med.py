"""MED, the mixture of encoder-decoder (arXiv 2201.12086, §3.1): one post-norm BERT that reads, looks and speaks.

The three roles share everything but the self-attention block and its norm (the paper's Table 3): a layer has a
`bidirectional` block for reading and looking and a `causal` one for speaking, one cross-attention and one feed-forward.

Shapes: B rows, L text tokens, D width, N image tokens, E image width, V words.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from capfilt.blocks.attention import (
    CrossAttention,
    KeysValues,
    Past,
    Seen,
    SelfAttention,
    absorbing_pays,
    mask_bias,
)
from capfilt.blocks.linear import Linear
from capfilt.blocks.packed_rows import PackedRows
from capfilt.blocks.vit import init_std

Role = Literal["read", "look", "speak"]
LIKELY = 16  # words


@dataclass(frozen=True)
class SpecialIds:
    """Ids that steer the text transformer. [DEC] and [ENC] overwrite the [CLS] at position 0."""

    pad: int = 0
    cls: int = 101
    sep: int = 102
    dec: int = 30522
    enc: int = 30523


def with_first(ids: Int[Tensor, "b l"], mark: int) -> Int[Tensor, "b l"]:
    """The same ids with position 0 overwritten."""
    return torch.cat((torch.full_like(ids[:, :1], mark), ids[:, 1:]), dim=1)


@dataclass(frozen=True)
class MedConfig:
    """Sizes of the text transformer. The vocabulary counts [DEC] and [ENC].

    checkpoint_layers: how many of the last layers keep no activations in training and compute them again going back.
    """

    vocab: int = 30524
    width: int = 768
    depth: int = 12
    heads: int = 12
    mlp: int = 3072
    positions: int = 512
    eps: float = 1e-12
    dropout: float = 0.1
    checkpoint_layers: int = 0


class MedLayer(nn.Module):
    """Self-attention (by role), cross-attention (unless reading), feed-forward; each adds, then normalises."""

    def __init__(self, config: MedConfig, seen_width: int, roles: frozenset[Role]):
        super().__init__()
        width, eps = config.width, config.eps
        reads, speaks, sees = bool(roles & {"read", "look"}), "speak" in roles, bool(roles & {"look", "speak"})
        self.bidirectional = SelfAttention(width, config.heads, config.dropout) if reads else None
        self.bidirectional_norm = nn.LayerNorm(width, eps) if reads else None
        self.causal = SelfAttention(width, config.heads, config.dropout) if speaks else None
        self.causal_norm = nn.LayerNorm(width, eps) if speaks else None
        self.cross = CrossAttention(width, seen_width, config.heads, config.dropout) if sees else None
        self.cross_norm = nn.LayerNorm(width, eps) if sees else None
        self.fc1 = Linear(width, config.mlp)
        self.fc2 = Linear(config.mlp, width)
        self.norm = nn.LayerNorm(width, eps)
        self.dropout = config.dropout

    def attended(self, x: Tensor, bias: Tensor | None, causal: bool, first_only: bool = False) -> Tensor:
        """The role's self-attention with its residual and norm."""
        block, norm = (self.causal, self.causal_norm) if causal else (self.bidirectional, self.bidirectional_norm)
        assert block is not None and norm is not None
        return norm((x[:, :1] if first_only else x) + self._drop(block(x, bias, first_only)))

    def rest(self, x: Tensor, own: Seen | None, far: Seen | None = None, hidden: Tensor | None = None) -> Tensor:
        """Cross-attention where there is something to see, then the feed-forward."""
        if own is not None:
            assert self.cross is not None and self.cross_norm is not None
            x = self.cross_norm(x + self._drop(self.cross(x, own, far, hidden)))
        return self.norm(x + self._drop(self.fc2(self.fc1(x, gelu=True))))

    def whole(
        self,
        x: Tensor,
        bias: Tensor | None,
        causal: bool,
        first_only: bool,
        own: Seen | None,
        far: Seen | None = None,
        hidden: Tensor | None = None,
    ) -> Tensor:
        """All of the layer: `attended`, then `rest`."""
        return self.rest(self.attended(x, bias, causal, first_only), own, far, hidden)

    def packed(self, x: Tensor, rows: PackedRows, bias: Tensor | None, own: Seen | None, first_only: bool) -> Tensor:
        """All of the layer, for reading or looking, over texts one behind another: (P, D) → (P, D), or (R, D)."""
        assert self.bidirectional is not None and self.bidirectional_norm is not None
        answer = self.bidirectional.packed(x, rows, bias, first_only)
        x = self.bidirectional_norm((x[rows.first] if first_only else x) + answer)
        if own is not None:
            assert self.cross is not None and self.cross_norm is not None
            x = self.cross_norm(x + self.cross.packed(x, own, rows.texts if first_only else rows.tokens))
        return self.rest(x, None)

    def step(self, x: Tensor, seen: Seen, past: Past, layer: int, hidden: Tensor | None = None) -> Tensor:
        """Goes on speaking: the states of new positions x."""
        assert self.causal is not None and self.causal_norm is not None
        return self.rest(self.causal_norm(x + self.causal.step(x, past, layer)), seen, None, hidden)

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout) if self.training and self.dropout else x


class WordHead(nn.Module):
    """States → word logits; the output matrix is the word table itself.

    Ready in bf16, whose logits have two or three digits, it computes those of the likeliest words again in fp32, where
    neighbours do not tie.
    """

    def __init__(self, config: MedConfig):
        super().__init__()
        self.dense = Linear(config.width, config.width)
        self.norm = nn.LayerNorm(config.width, config.eps)
        self.bias = nn.Parameter(torch.zeros(config.vocab))
        self.ready: nn.Module | None = None  # the word table as a map, where the transformer is ready for use

    def forward(self, states: Float[Tensor, "*n d"], words: Float[Tensor, "v d"]) -> Float[Tensor, "*n v"]:
        """(..., D) → (..., V)."""
        states = self.norm(self.dense(states, gelu=True))
        if self.ready is None:
            return F.linear(states, words, self.bias)
        logits = self.ready(states)
        if logits.dtype == words.dtype:
            return logits
        logits = logits.to(words.dtype)
        likely = logits.topk(min(LIKELY, len(words)), dim=-1).indices
        return logits.scatter(-1, likely, torch.einsum("...kd,...d->...k", words[likely], states) + self.bias[likely])


class Med(nn.Module):
    """The text transformer with the roles it is built for."""

    def __init__(self, config: MedConfig, seen_width: int, roles: frozenset[Role]):
        super().__init__()
        self.config = config
        self.words = nn.Embedding(config.vocab, config.width)
        self.positions = nn.Embedding(config.positions, config.width)
        self.norm = nn.LayerNorm(config.width, config.eps)
        layers = nn.ModuleList(MedLayer(config, seen_width, roles) for _ in range(config.depth))
        self.layers = cast("Sequence[MedLayer]", layers)  # a ModuleList cannot say what it holds
        self.head = WordHead(config) if "speak" in roles else None

    def embed(self, ids: Int[Tensor, "b l"], start: int | Int[Tensor, "b"] = 0) -> Float[Tensor, "b l d"]:
        """Word + absolute position, normalised. `start` is the position of the first id, of all rows or of each
        (a tracing exporter has a number as a tensor without dimensions)."""
        if isinstance(start, Tensor) and start.ndim:
            places = self.positions(start[:, None] + torch.arange(ids.shape[1], device=ids.device))
        else:
            places = self.positions.weight[start : start + ids.shape[1]]
        x = self.norm(self.words(ids) + places)
        return F.dropout(x, self.config.dropout) if self.training and self.config.dropout else x

    def read(self, ids: Int[Tensor, "b l"], mask: Int[Tensor, "b l"], first_only: bool = False) -> Tensor:
        """Text alone, both ways: (B, L, D), or (B, 1, D) for position 0 alone."""
        return self._encode(ids, mask, None, None, first_only)

    def project(self, image: Float[Tensor, "b n e"]) -> list[KeysValues]:
        """Image tokens → keys and values of every layer, once for all texts that will look at the image."""
        return [cross.project(image) for cross in self._crosses()]

    def seen(self, image: Float[Tensor, "b n e"], queries: int, last: int | None = None) -> Sequence[Seen]:
        """What texts look at where nothing is trained: `project`ed, or the tokens themselves where that is cheaper.

        queries: how many text positions will look at each image in all. last: in the last layer, where those are fewer.
        """
        crosses = self._crosses()
        image = image.to(crosses[0].kv.weight.dtype)
        asked = [queries] * (len(crosses) - 1) + [queries if last is None else last]
        size = *image.shape[1:], self.config.width, self.config.heads
        return [
            image if absorbing_pays(n, *size) else cross.project(image) for n, cross in zip(asked, crosses, strict=True)
        ]

    def _crosses(self) -> list[CrossAttention]:
        return [cast("CrossAttention", layer.cross) for layer in self.layers]

    def look(
        self,
        ids: Int[Tensor, "r l"],
        mask: Int[Tensor, "r l"],
        own: Sequence[Seen],
        far: Sequence[Seen] | None = None,
        first_only: bool = False,
        hidden: Tensor | None = None,
    ) -> Tensor:
        """Text that looks at images, both ways. Which row sees which image: see `CrossAttention.forward`.

        hidden: (B, 1, 1, N), -inf at tokens that only pad what is looked at; None where all are seen.
        """
        return self._encode(ids, mask, own, far, first_only, hidden)

    def first_states(self, rows: PackedRows, own: Sequence[Seen] | None = None) -> Float[Tensor, "r d"]:
        """Position 0 of texts that are read alone, or look at their images; for use, not for training.

        What `read` and `look` give with `first_only`, without padding anything.
        """
        x = self.norm(self.words(rows.ids) + self.positions(rows.places))
        bias = None if rows.table is None else mask_bias(rows.mask, False, x.dtype)
        last = len(self.layers) - 1
        for i, layer in enumerate(self.layers):
            x = layer.packed(x, rows, bias, own[i] if own else None, i == last)
        return x

    def speak(
        self,
        ids: Int[Tensor, "r l"],
        mask: Int[Tensor, "r l"],
        own: Sequence[Seen],
        hidden: Tensor | None = None,
    ) -> Float[Tensor, "r l d"]:
        """States of a text spoken left to right about images; `word_logits` turns them into words."""
        x = self.embed(ids)
        bias = mask_bias(mask, True, x.dtype)
        for i, (layer, seen) in enumerate(zip(self.layers, own, strict=True)):
            x = self._layer(i, layer.whole, x, bias, True, False, seen, None, hidden)
        return x

    def speak_on(
        self, ids: Int[Tensor, "r l"], own: Sequence[Seen], past: Past, hidden: Tensor | None = None
    ) -> Float[Tensor, "r l d"]:
        """The next positions of texts being spoken, which `past` takes in: their states. L > 1 only at the start."""
        x = self.embed(ids, past.length)
        past.open(*ids.shape)
        for i, (layer, seen) in enumerate(zip(self.layers, own, strict=True)):
            x = layer.step(x, seen, past, i, hidden)
        past.close()
        return x

    def word_logits(self, states: Float[Tensor, "*n d"]) -> Float[Tensor, "*n v"]:
        """(..., D) → (..., V)."""
        assert self.head is not None
        return self.head(states, self.words.weight)

    def init_weights(self) -> None:
        """Normal, .02 at BERT's width, for linear weights and tables; zero biases; norms 1 and 0."""
        std = init_std(self.config.width)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=std)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)

    def _encode(
        self,
        ids: Tensor,
        mask: Tensor,
        own: Sequence[Seen] | None,
        far: Sequence[Seen] | None,
        first_only: bool,
        hidden: Tensor | None = None,
    ) -> Tensor:
        x = self.embed(ids)
        bias = mask_bias(mask, False, x.dtype)
        last = len(self.layers) - 1
        for i, layer in enumerate(self.layers):
            seen = own[i] if own else None, far[i] if far else None, hidden
            x = self._layer(i, layer.whole, x, bias, False, first_only and i == last, *seen)
        return x

    def _layer(self, i: int, layer: Callable[..., Tensor], *inputs: object) -> Tensor:
        if self.training and torch.is_grad_enabled() and i >= len(self.layers) - self.config.checkpoint_layers:
            return checkpoint(layer, *inputs, use_reentrant=False)
        return layer(*inputs)
