"""From scores of the next word to a chosen one: penalty, ban, top-k and nucleus filter, and a draw without a generator.

Shapes: R texts, S ids said so far, V words, K words left by top-k.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


def penalised(scores: Float[Tensor, "r v"], seen: Int[Tensor, "r s"], penalty: float) -> Float[Tensor, "r v"]:
    """Makes every word seen so far less likely (CTRL, arXiv 1909.05858): scores above 0 divided by `penalty`, below 0
    multiplied with it. 1 changes nothing; a word seen twice is penalised once."""
    if penalty == 1:
        return scores
    old = scores.gather(1, seen)
    return scores.scatter(1, seen, torch.where(old < 0, old * penalty, old / penalty))


def without(scores: Float[Tensor, "r v"], word: int) -> Float[Tensor, "r v"]:
    """The same scores with one word made impossible."""
    return scores.index_fill(1, torch.tensor([word], device=scores.device), -math.inf)


def nucleus(
    scores: Float[Tensor, "r v"], top_k: int = 0, top_p: float = 1.0, temperature: float = 1.0
) -> tuple[Int[Tensor, "r k"], Float[Tensor, "r k"]]:
    """What may be drawn (arXiv 1904.09751): (ids, probabilities), likeliest first, each row summing to 1.

    top_k: only so many of the likeliest words; 0 for all.
    top_p: of these, the fewest whose probability exceeds it; the word that crosses it is still in. Words that are out
           have probability 0.
    """
    words = scores.shape[1]
    values, ids = (scores / temperature).topk(min(top_k, words) if top_k else words)
    probabilities = values.softmax(dim=-1)
    if top_p < 1:
        before = F.pad(probabilities.cumsum(dim=-1)[:, :-1], (1, 0))
        probabilities = probabilities.masked_fill(before > top_p, 0.0)
    return ids, probabilities / probabilities.sum(dim=-1, keepdim=True)


def pick(
    ids: Int[Tensor, "r k"], probabilities: Float[Tensor, "r k"], uniforms: Float[Tensor, "r"]
) -> Int[Tensor, "r"]:
    """The word at which the running sum of probabilities passes the row's own number in [0, 1)."""
    reached = probabilities.double().cumsum(dim=-1)
    index = (reached <= uniforms.double()[:, None] * reached[:, -1:]).sum(dim=-1, keepdim=True)
    return ids.gather(1, index)[:, 0]
