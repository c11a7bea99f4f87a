"""From scores of the next word to a chosen one: penalty, bans, top-k, nucleus filter, and a draw without a generator.

Shapes: R texts, S ids said so far, V words, K words left by top-k, or sequences, N ids of a sequence.
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
    scores = scores.clone()
    scores[:, word] = -math.inf
    return scores


def unrepeated(scores: Float[Tensor, "r v"], seen: Int[Tensor, "r s"], size: int) -> Float[Tensor, "r v"]:
    """Makes every word impossible that would write `size` ids in a row for the second time."""
    if seen.shape[1] < size:
        return scores
    rows = seen.unfold(1, size, 1)
    again = (rows[..., :-1] == _last(seen, size - 1)).all(dim=-1)
    return _barred(scores, rows[..., -1], again)


def unsaid(
    scores: Float[Tensor, "r v"], said: Int[Tensor, "r s"], sequences: Int[Tensor, "k n"]
) -> Float[Tensor, "r v"]:
    """Makes the last id of each sequence impossible where the ids before it have just been said."""
    size = sequences.shape[1]
    if said.shape[1] < size - 1:
        return scores
    begun = (_last(said, size - 1) == sequences[:, :-1]).all(dim=-1)
    return _barred(scores, sequences[:, -1].expand(len(said), -1), begun)


def _last(ids: Tensor, count: int) -> Tensor:
    """The last `count` ids of each row, (R, 1, count)."""
    return ids[:, None, ids.shape[1] - count :]


def _barred(scores: Tensor, words: Tensor, where: Tensor) -> Tensor:
    """Makes words[r, i] impossible in row r if where[r, i]; a word may stand there twice, barred once and once not."""
    most = torch.where(where, -math.inf, math.inf).to(scores.dtype)
    return scores.scatter_reduce(1, words, most, "amin")


def nucleus(
    scores: Float[Tensor, "r v"], top_k: int = 0, top_p: float = 1.0, temperature: float = 1.0
) -> tuple[Int[Tensor, "r k"], Float[Tensor, "r k"]]:
    """What may be drawn (arXiv 1904.09751): (ids, probabilities), likeliest first, each row summing to 1.

    top_k: only so many of the likeliest words; 0 for all.
    top_p: of these, the fewest whose probability exceeds it; the word that crosses it is still in. Words that are out
           have probability 0.
    """
    words = scores.shape[1]
    values, ids = scores.topk(min(top_k, words) if top_k else words)
    probabilities = (values / temperature).softmax(dim=-1)
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
