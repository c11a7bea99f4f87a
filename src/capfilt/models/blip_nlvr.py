"""BLIP for statements about two images (arXiv 2201.12086, §5.5, NLVR2): true or false.

Shapes: B statements, each of two images of N tokens; L text tokens, D width.
"""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from capfilt.blocks.med import MedConfig, SpecialIds, with_first
from capfilt.blocks.twin import Pair, TwinMed
from capfilt.blocks.vit import Vit, VitConfig, init_std
from capfilt.pair import Statements


@dataclass(frozen=True)
class BlipNlvrConfig:
    """What is built. `merge_from` is the first text layer with a learned merge of both images; BLIP has 6 of 12."""

    vit: VitConfig = field(default_factory=lambda: VitConfig(px=384, drop_path=0.1))
    text: MedConfig = field(default_factory=MedConfig)
    special: SpecialIds = field(default_factory=SpecialIds)
    merge_from: int = 6


@dataclass(frozen=True)
class Reasoning:
    """How a BlipNlvr is trained: plain cross-entropy, nothing to set."""


class BlipNlvr(nn.Module):
    """One vision tower for both images, a text transformer that looks at the two, and a head of two layers."""

    def __init__(self, config: BlipNlvrConfig):
        super().__init__()
        self.config = config
        width = config.text.width
        self.vit = Vit(config.vit)
        self.text = TwinMed(config.text, config.vit.width, config.merge_from)
        self.dense = nn.Linear(width, width)
        self.verdict = nn.Linear(width, 2)

    def init_weights(self) -> "BlipNlvr":
        """Fresh weights, as `Blip.init_weights`; the head as the text transformer."""
        self.vit.init_weights()
        self.text.init_weights()
        for layer in (self.dense, self.verdict):
            nn.init.normal_(layer.weight, std=init_std(self.config.text.width))
            nn.init.zeros_(layer.bias)
        return self

    def look(self, first: Float[Tensor, "b 3 h w"], second: Float[Tensor, "b 3 h w"]) -> list[Pair]:
        """Pixels of both images → what the text looks at."""
        return self.text.project_pair(*self.vit(torch.cat((first, second))).chunk(2))

    def logits(self, ids: Int[Tensor, "b l"], mask: Int[Tensor, "b l"], seen: list[Pair]) -> Float[Tensor, "b 2"]:
        """Statements about pairs → logits of (false, true)."""
        states = self.text.look_at_pair(with_first(ids, self.config.special.enc), mask, seen, first_only=True)
        with torch.autocast(states.device.type, enabled=False):
            return self.verdict(F.relu(self.dense(states[:, 0].float())))

    def losses(self, batch: Statements, objective: Reasoning, *_: object) -> dict[str, Tensor]:
        """Cross-entropy of true against false."""
        return {"nlvr": F.cross_entropy(self.logits(batch.ids, batch.mask, self.look(*batch.pixels)), batch.label)}


PRESETS: dict[str, BlipNlvrConfig] = {
    "tiny": BlipNlvrConfig(
        VitConfig(px=32, patch=8, width=32, depth=2, heads=2, mlp=64),
        MedConfig(vocab=64, width=32, depth=2, heads=2, mlp=64, positions=40, dropout=0.0),
        SpecialIds(pad=0, cls=2, sep=3, dec=5, enc=6),
        merge_from=1,
    ),
    "base": BlipNlvrConfig(),
}
