"""A text transformer that looks at two images at once (BLIP, arXiv 2201.12086, §5.5, NLVR2).

Every layer has two cross-attentions, one an image, fed by the same query. Early layers take the mean of what both saw,
later ones a learned map of both side by side; one norm and one residual serve the pair.

Shapes: B rows, L text tokens, D width, N image tokens, E image width.
"""

from collections.abc import Sequence
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from capfilt.blocks.attention import CrossAttention, KeysValues, mask_bias
from capfilt.blocks.med import Med, MedConfig, MedLayer

Pair = tuple[KeysValues, KeysValues]


class TwinLayer(MedLayer):
    """A reading layer with two cross-attentions between its self-attention and its feed-forward."""

    def __init__(self, config: MedConfig, seen_width: int, merged: bool):
        super().__init__(config, seen_width, frozenset(("read",)))
        width = config.width
        self.cross0 = CrossAttention(width, seen_width, config.heads, config.dropout)
        self.cross1 = CrossAttention(width, seen_width, config.heads, config.dropout)
        self.merge = nn.Linear(2 * width, width) if merged else None
        self.cross_norm = nn.LayerNorm(width, config.eps)

    def forward(self, x: Tensor, bias: Tensor, seen: Pair, first_only: bool = False) -> Tensor:
        """(B, L, D) → (B, L, D), or (B, 1, D): position 0 alone."""
        assert self.cross_norm is not None
        x = self.attended(x, bias, False, first_only)
        first, second = self.cross0(x, seen[0]), self.cross1(x, seen[1])
        both = (first + second) / 2 if self.merge is None else self.merge(torch.cat((first, second), dim=-1))
        return self.rest(self.cross_norm(x + self._drop(both)), None)


class TwinMed(Med):
    """The text transformer over two images. Layers from `merge_from` on have a learned merge, those before a mean."""

    def __init__(self, config: MedConfig, seen_width: int, merge_from: int):
        super().__init__(config, seen_width, frozenset(("read",)))
        layers = nn.ModuleList(TwinLayer(config, seen_width, i >= merge_from) for i in range(config.depth))
        self.layers: Sequence[TwinLayer] = cast("Sequence[TwinLayer]", layers)

    def project_pair(self, first: Float[Tensor, "b n e"], second: Float[Tensor, "b n e"]) -> list[Pair]:
        """Tokens of both images → keys and values of every layer."""
        return [(layer.cross0.project(first), layer.cross1.project(second)) for layer in self.layers]

    def look_at_pair(
        self, ids: Int[Tensor, "r l"], mask: Int[Tensor, "r l"], seen: list[Pair], first_only: bool = False
    ) -> Float[Tensor, "r m d"]:
        """States of R texts about B pairs, row i about pair i mod B: (R, L, D), or (R, 1, D) for position 0 alone."""
        x = self.embed(ids)
        bias = mask_bias(mask, False, x.dtype)
        last = len(self.layers) - 1
        for i, (layer, pair) in enumerate(zip(self.layers, seen, strict=True)):
            x = self._layer(i, layer, x, bias, pair, first_only and i == last)
        return x
