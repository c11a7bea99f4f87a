"""Image-text matching with hard negatives (ALBEF §3.2, BLIP §3.2).

Shapes: B pairs, C candidates to draw a wrong partner from.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from capfilt.errors import BatchError


def negative_odds(sim: Float[Tensor, "b c"], same: Bool[Tensor, "b c"], floor: float = 1e-4) -> Float[Tensor, "b c"]:
    """How likely each column is drawn as row i's wrong partner: likelier the more it resembles a right one.

    sim:   similarity of row i to column j, divided by the temperature; higher is closer.
    same:  True where column j is a right answer for row i (own pair, same image, same words): never drawn.
    floor: added to every softmax entry; BLIP has 1e-4 in pre-training and 0 in retrieval.

    A row whose allowed columns all underflow to 0 draws evenly among them; a row with no allowed column is all 0.
    """
    if sim.shape[1] < 2:
        raise BatchError(
            f"a wrong partner needs at least 2 pairs, the batch has {sim.shape[1]}. "
            "Raise the batch size, or drop 'itm' from the losses."
        )
    odds = (sim.detach().float().softmax(dim=1) + floor).masked_fill(same, 0.0)
    return torch.where(odds.sum(dim=1, keepdim=True) > 0, odds, (~same).float())


def draw(odds: Float[Tensor, "b c"], uniform: Float[Tensor, "b"]) -> tuple[Int[Tensor, "b"], Bool[Tensor, "b"]]:
    """One column a row, by inverting the cumulative odds at `uniform` in [0, 1): a draw hangs on the row's own number.

    Returns (column, valid); valid is False where a row had no allowed column.
    """
    cumulative = odds.double().cumsum(dim=1)
    total = cumulative[:, -1:]
    column = torch.searchsorted(cumulative, uniform.double()[:, None] * total, right=True).squeeze(1)
    # Rounding must not step past the last allowed column.
    last = odds.shape[1] - 1 - (odds > 0).flip(1).int().argmax(dim=1)
    return torch.minimum(column, last), total.squeeze(1) > 0


def matching(
    logits: Float[Tensor, "r 2"], labels: Int[Tensor, "r"], valid: Bool[Tensor, "r"] | None = None
) -> Float[Tensor, ""]:
    """Cross-entropy of match (1) against no match (0), mean over the valid rows."""
    losses = F.cross_entropy(logits.float(), labels, reduction="none")
    if valid is None:
        return losses.mean()
    return (losses * valid).sum() / valid.sum().clamp(min=1)
