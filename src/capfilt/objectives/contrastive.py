"""Image-text contrast with momentum twins, queues and soft targets (ALBEF arXiv 2107.07651 §3.2-3.3, BLIP §3.2).

Shapes: B pairs, C columns (candidates: this batch's momentum features, then the queue), E compared width.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

TEMPERATURE = (0.001, 0.5)


def alpha_at(step: int, ramp_steps: int, alpha: float = 0.4) -> float:
    """Weight of the momentum model's opinion in the targets: rises linearly to `alpha` over `ramp_steps`."""
    return alpha * min(1.0, step / max(1, ramp_steps))


def positives_on_diagonal(rows: int, columns: int, offset: int = 0, device=None) -> Bool[Tensor, "b c"]:
    """Row i's only right answer is column offset + i."""
    index = torch.arange(rows, device=device)
    return index[:, None] + offset == torch.arange(columns, device=device)


def soft_targets(
    sim_momentum: Float[Tensor, "b c"], positives: Bool[Tensor, "b c"], alpha: float
) -> Float[Tensor, "b c"]:
    """alpha · softmax(momentum similarities / temperature) + (1 - alpha) · uniform over the right answers."""
    hard = positives.float()
    hard = hard / hard.sum(dim=1, keepdim=True)
    return hard if alpha == 0 else alpha * sim_momentum.float().softmax(dim=1) + (1 - alpha) * hard


def contrastive(
    sim_i2t: Float[Tensor, "b c"],
    sim_t2i: Float[Tensor, "b c"],
    targets_i2t: Float[Tensor, "b c"],
    targets_t2i: Float[Tensor, "b c"],
) -> Float[Tensor, ""]:
    """Mean over both directions of the cross-entropy against soft targets; similarities divided by the temperature."""
    i2t = -(targets_i2t * sim_i2t.float().log_softmax(dim=1)).sum(dim=1).mean()
    t2i = -(targets_t2i * sim_t2i.float().log_softmax(dim=1)).sum(dim=1).mean()
    return (i2t + t2i) / 2


def enqueue(queue: Tensor, new: Tensor, pointer: Tensor) -> None:
    """Overwrites the oldest rows of `queue` (K, ...) with `new` (B, ...) in place and moves `pointer` (1,) on.

    Any B and K work: the queue wraps, and of more than K rows the last K stay.
    """
    size, count = len(queue), len(new)
    if size == 0:
        return
    slots = (pointer + torch.arange(max(0, count - size), count, device=queue.device)) % size
    queue.index_copy_(0, slots, new[-size:].to(queue.dtype))
    pointer.copy_((pointer + count) % size)
