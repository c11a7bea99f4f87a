"""How fast a run is: pairs a second, and its model FLOP utilisation, the share of this machine's matmul speed.

The FLOPs are those of the model's own arithmetic, twice its multiply-adds: what is computed again to save memory, and
optimiser, norms, softmaxes and similarities (under 1%) are not counted.
"""

import functools
import time
from typing import Any

import torch
from torch import nn

from capfilt.blocks.med import MedConfig
from capfilt.blocks.vit import STEMS, VitConfig
from capfilt.models.blip import Blip, BlipConfig, Objective
from capfilt.runtime import matmul_speed


class Speedometer:
    """Pairs and FLOPs since the last reading. Nothing here waits for the device, but for the first reading's matmul."""

    def __init__(self, model: nn.Module, objective: object, device: torch.device, dtype: torch.dtype):
        self.known: tuple[BlipConfig, Objective] | None = None
        if isinstance(model, Blip) and isinstance(objective, Objective):
            self.known = model.config, objective
        self.device, self.dtype = device, dtype
        self.pairs, self.flops, self.since = 0, 0.0, time.monotonic()

    def saw(self, pairs: int, text_length: int) -> None:
        """A micro-batch was trained on; texts padded to that length."""
        self.pairs += pairs
        if self.known is not None:
            self.flops += step_flops(*self.known, pairs, text_length)

    def read(self, world: int) -> dict[str, float]:
        """`pairs_per_s` of all `world` ranks and, of a Blip, this rank's `mfu` in [0, 1]; then starts anew."""
        seconds = max(time.monotonic() - self.since, 1e-9)
        found = {"pairs_per_s": round(self.pairs * world / seconds, 1)}
        if self.flops:
            found["mfu"] = round(self.flops / seconds / matmul_speed(self.device, self.dtype), 4)
        self.pairs, self.flops, self.since = 0, 0.0, time.monotonic()
        return found


def step_flops(config: BlipConfig, objective: Objective, pairs: int, text_length: int) -> float:
    """FLOPs of one training step on `pairs` pairs, forward and backward, texts `text_length` tokens long.

    A backward pass costs its forward pass twice; the twins have none.
    """
    vit, text, words = config.vit, config.text, text_length
    losses = set(objective.losses)
    macs = 3 * vit_macs(vit, False) - _stem_macs(vit)[0]  # nobody asks for the gradient of pixels
    if losses & {"itc", "itm"}:
        macs += 3 * _text_macs(text, words, 0, True)
        if config.queue:
            macs += vit_macs(vit, True) + _text_macs(text, words, 0, True)
    if losses & {"itm", "lm"}:
        macs += 3 * text.depth * vit.tokens * 2 * vit.width * text.width  # keys and values of the image
    if "itm" in losses:
        macs += 3 * 3 * _text_macs(text, words, vit.tokens, True)  # true pair, wrong image, wrong text
    if "lm" in losses:
        head = (words - 1) * text.width * (text.width + text.vocab)
        macs += 3 * (_text_macs(text, words - 1, vit.tokens, False) + head)
    return 2.0 * macs * pairs


def vit_macs(config: VitConfig, cls_only: bool) -> int:
    """Multiply-adds of one image through the tower; `cls_only` as `Vit.forward`."""
    n, d, mlp = config.tokens, config.width, config.mlp
    last = _block_macs(n, 1 if cls_only else n, d, mlp)
    return sum(_stem_macs(config)) + (config.depth - 1) * _block_macs(n, n, d, mlp) + last


def _text_macs(config: MedConfig, words: int, seen: int, first_only: bool) -> int:
    """Of one text that looks at `seen` projected tokens, 0 if it only reads."""
    d, last = config.width, 1 if first_only else words

    def layer(rows: int) -> int:
        cross = rows * (2 * d * d + 2 * seen * d) if seen else 0
        return _block_macs(words, rows, d, config.mlp) + cross

    return (config.depth - 1) * layer(words) + layer(last)


def _block_macs(tokens: int, rows: int, width: int, mlp: int) -> int:
    """Self-attention and feed-forward; keys and values of all tokens, the rest of `rows` of them."""
    return 2 * tokens * width**2 + rows * (2 * width**2 + 2 * tokens * width + 2 * width * mlp)


@functools.cache
def _stem_macs(config: VitConfig) -> tuple[int, ...]:
    """Of each of its layers, the one that sees pixels first."""
    with torch.device("meta"):
        stem: Any = STEMS[config.stem](config.patch, config.width)
    side, layers = config.px, []
    for conv in stem.convs if config.stem == "conv" else ():
        side //= conv.stride[0]
        layers.append(side**2 * conv.weight.numel())
    return (*layers, (config.tokens - 1) * stem.proj.weight.numel())
