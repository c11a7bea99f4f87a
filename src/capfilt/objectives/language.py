"""Language modelling: the text, word by word, given what is seen (BLIP §3.2).

Shapes: T predicted positions, R texts of M predicted positions, V words.
"""

from typing import Literal

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

IGNORED = -100
SmoothingRule = Literal["modern", "torch110"]


def next_labels(ids: Int[Tensor, "b l"], mask: Int[Tensor, "b l"], prompt: int = 0) -> Int[Tensor, "b m"]:
    """What position i should predict, the id at i + 1; padding and the first `prompt` ids are `IGNORED`. M = L - 1."""
    labels = ids.masked_fill(mask == 0, IGNORED)
    if prompt:
        labels[:, :prompt] = IGNORED
    return labels[:, 1:]


def next_token(
    logits: Float[Tensor, "t v"],
    labels: Int[Tensor, "t"],
    smoothing: float = 0.1,
    rule: SmoothingRule = "modern",
    count: Tensor | None = None,
) -> Float[Tensor, ""]:
    """Label-smoothed cross-entropy, mean over the positions that are not ignored.

    count: divide by this number of positions instead (the mean over all ranks).
    rule:  `modern` is torch >= 1.11, ignored positions contribute nothing; `torch110` also smooths over ignored
           positions, averaged over all of them, as the runtime did that BLIP was published with (pytorch#73205).
    """
    logits = logits.float()
    if rule == "modern":
        total = F.cross_entropy(logits, labels, ignore_index=IGNORED, label_smoothing=smoothing, reduction="sum")
        return total / (count if count is not None else (labels != IGNORED).sum().clamp(min=1))
    hard = F.cross_entropy(logits, labels, ignore_index=IGNORED)
    return (1 - smoothing) * hard - smoothing * logits.log_softmax(dim=-1).mean(dim=-1).mean()


def text_losses(
    logits: Float[Tensor, "r m v"],
    labels: Int[Tensor, "r m"],
    smoothing: float = 0.1,
    rule: SmoothingRule = "modern",
) -> Float[Tensor, "r"]:
    """Label-smoothed cross-entropy of each text, summed over its positions (BLIP's answers, §5.4).

    Minus this is a text's score where candidates are ranked; with smoothing 0 that is its log-probability. `rule` as in
    `next_token`: under `torch110` every ignored position adds its share of the smoothing, so that a text's loss grows
    with its padding.
    """
    logits = logits.float()
    each = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), label_smoothing=smoothing, reduction="none")
    each = each.view(labels.shape)
    if rule == "torch110":
        uniform = -smoothing * logits.log_softmax(dim=-1).mean(dim=-1)
        each = each + uniform.masked_fill(labels != IGNORED, 0.0)
    return each.sum(dim=1)
