"""BLIP for visual questions (arXiv 2201.12086, §5.4): the question looks at the image, the answer is spoken about it.

The answer decoder sees the question's states alone, never the image; so its keys and values have the text's width.

Shapes: B images of N tokens, Q questions of L tokens, A answers of M tokens, D width, V words.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from capfilt.blocks.attention import Seen, mask_bias
from capfilt.blocks.med import Med, MedConfig, SpecialIds, with_first
from capfilt.blocks.vit import Vit, VitConfig
from capfilt.objectives.language import SmoothingRule, next_labels, text_losses
from capfilt.pair import Questions


@dataclass(frozen=True)
class BlipVqaConfig:
    """What is built; question encoder and answer decoder have the same sizes and share nothing."""

    vit: VitConfig = field(default_factory=lambda: VitConfig(px=480, drop_path=0.1))
    text: MedConfig = field(default_factory=MedConfig)
    special: SpecialIds = field(default_factory=SpecialIds)


@dataclass(frozen=True)
class Answering:
    """How a BlipVqa is trained: each answer's smoothed cross-entropy, summed over its words, by its weight."""

    smoothing: float = 0.1
    smoothing_rule: SmoothingRule = "modern"


class BlipVqa(nn.Module):
    """A vision tower, a question encoder that looks at the image, and a decoder that speaks about the question."""

    def __init__(self, config: BlipVqaConfig):
        super().__init__()
        self.config = config
        self.vit = Vit(config.vit)
        self.text = Med(config.text, config.vit.width, frozenset(("look",)))
        self.answer = Med(config.text, config.text.width, frozenset(("speak",)))

    def init_weights(self) -> "BlipVqa":
        """Fresh weights, as `Blip.init_weights`."""
        self.vit.init_weights()
        self.text.init_weights()
        self.answer.init_weights()
        return self

    def question(
        self, ids: Int[Tensor, "q l"], mask: Int[Tensor, "q l"], seen: Sequence[Seen], marked: bool = True
    ) -> Float[Tensor, "q l d"]:
        """States of questions about projected images (`self.text.project`); question i is about image i mod B.

        marked: [ENC] takes the place of [CLS], as in training.
        """
        return self.text.look(with_first(ids, self.config.special.enc) if marked else ids, mask, seen)

    def answer_logits(
        self,
        ids: Int[Tensor, "a m"],
        mask: Int[Tensor, "a m"],
        heard: Sequence[Seen],
        hidden: Float[Tensor, "q 1 1 l"] | None,
    ) -> Float[Tensor, "a m v"]:
        """Word logits at every position of answers to projected questions (`self.answer.project`); answer i to i mod Q.

        hidden: -inf at question padding (`mask_bias`); None shows the padding too.
        """
        spoken = self.answer.speak(with_first(ids, self.config.special.dec), mask, heard, hidden)
        with torch.autocast(spoken.device.type, enabled=False):
            return self.answer.word_logits(spoken.float())

    def losses(self, batch: Questions, objective: Answering, *_: object) -> dict[str, Tensor]:
        """Weighted sum over all answers, divided by the number of questions."""
        states = self.question(batch.ids, batch.mask, self.text.project(self.vit(batch.pixels)))
        heard = [(k[batch.owner], v[batch.owner]) for k, v in self.answer.project(states)]
        hidden = mask_bias(batch.mask, False, states.dtype)[batch.owner]
        logits = self.answer_logits(batch.answer_ids, batch.answer_mask, heard, hidden)[:, :-1]
        labels = next_labels(batch.answer_ids, batch.answer_mask)
        each = text_losses(logits, labels, objective.smoothing, objective.smoothing_rule)
        return {"vqa": (batch.weight * each).sum() / len(batch)}


PRESETS: dict[str, BlipVqaConfig] = {
    "tiny": BlipVqaConfig(
        VitConfig(px=32, patch=8, width=32, depth=2, heads=2, mlp=64),
        MedConfig(vocab=64, width=32, depth=2, heads=2, mlp=64, positions=40, dropout=0.0),
        SpecialIds(pad=0, cls=2, sep=3, dec=5, enc=6),
    ),
    "base": BlipVqaConfig(),
    "large": BlipVqaConfig(VitConfig(px=480, width=1024, depth=24, heads=16, mlp=4096, drop_path=0.1)),
}
