"""BLIP for visual dialogue (arXiv 2201.12086, §5.6, VisDial): does this answer go on with this talk about this image?

The dialogue (history, question and one candidate answer as one text) looks at the image and at its caption, both as one
sequence of tokens. The paper gives no code; what it leaves open is said where it is decided.

Shapes: B images of N tokens, C caption tokens, R dialogues of L tokens, D width (of image and text alike).
"""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from capfilt.blocks.attention import KeysValues, mask_bias
from capfilt.blocks.med import Med, MedConfig, SpecialIds, with_first
from capfilt.blocks.vit import Vit, VitConfig
from capfilt.errors import ConfigError
from capfilt.pair import Dialogues

Seen = tuple[list[KeysValues], Tensor]


@dataclass(frozen=True)
class BlipVisdialConfig:
    """What is built. Image and text must have one width: their tokens stand in one sequence."""

    vit: VitConfig = field(default_factory=lambda: VitConfig(px=384))
    text: MedConfig = field(default_factory=MedConfig)
    special: SpecialIds = field(default_factory=SpecialIds)


@dataclass(frozen=True)
class Continuing:
    """How a BlipVisdial is trained: each candidate is right or wrong, nothing to set."""


class BlipVisdial(nn.Module):
    """A vision tower, a caption encoder, and a dialogue encoder that looks at the tokens of both."""

    def __init__(self, config: BlipVisdialConfig):
        super().__init__()
        if config.vit.width != config.text.width:
            raise ConfigError(
                f"vit.width={config.vit.width}, text.width={config.text.width}: a dialogue looks at image and caption "
                "as one sequence, so both widths must be equal"
            )
        self.config = config
        self.vit = Vit(config.vit)
        self.caption = Med(config.text, config.text.width, frozenset(("read",)))
        self.dialog = Med(config.text, config.vit.width, frozenset(("look",)))
        self.match_head = nn.Linear(config.text.width, 2)

    def init_weights(self) -> "BlipVisdial":
        """Fresh weights, as `Blip.init_weights`."""
        self.vit.init_weights()
        self.caption.init_weights()
        self.dialog.init_weights()
        return self

    def look(self, pixels: Float[Tensor, "b 3 h w"], ids: Int[Tensor, "b c"], mask: Int[Tensor, "b c"]) -> Seen:
        """Images and their captions → what dialogues look at: keys and values, and where they only pad."""
        image = self.vit(pixels)
        shown = torch.cat((torch.ones_like(mask[:, :1]).expand(-1, image.shape[1]), mask), dim=1)
        told = torch.cat((image, self.caption.read(ids, mask)), dim=1)
        return self.dialog.project(told), mask_bias(shown, False, told.dtype)

    def logits(self, ids: Int[Tensor, "r l"], mask: Int[Tensor, "r l"], seen: Seen) -> Float[Tensor, "r 2"]:
        """Dialogues → logits of (wrong answer, right answer); dialogue i is about image i mod B."""
        kv, hidden = seen
        states = self.dialog.look(with_first(ids, self.config.special.enc), mask, kv, None, True, hidden)
        with torch.autocast(states.device.type, enabled=False):
            return self.match_head(states[:, 0].float())

    def losses(self, batch: Dialogues, objective: Continuing, *_: object) -> dict[str, Tensor]:
        """Cross-entropy of right against wrong, over all candidates of the batch."""
        kv, hidden = self.look(batch.pixels, batch.caption_ids, batch.caption_mask)
        about = [(k[batch.owner], v[batch.owner]) for k, v in kv], hidden[batch.owner]
        logits = self.logits(batch.ids, batch.mask, about)
        return {"visdial": F.cross_entropy(logits, batch.label)}


PRESETS: dict[str, BlipVisdialConfig] = {
    "tiny": BlipVisdialConfig(
        VitConfig(px=32, patch=8, width=32, depth=2, heads=2, mlp=64),
        MedConfig(vocab=64, width=32, depth=2, heads=2, mlp=64, positions=64, dropout=0.0),
        SpecialIds(pad=0, cls=2, sep=3, dec=5, enc=6),
    ),
    "base": BlipVisdialConfig(),
}
