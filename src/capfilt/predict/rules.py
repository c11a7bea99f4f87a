"""Rules on what may be written next: penalty, repeats, words that must not be in a text, and words that must.

How far a text has come with the words it must hold is a state of one finite automaton (arXiv 1612.00576): where a text
stands in each of them, all at once, since one id can belong to several.

Shapes: R texts, B images, T texts an image, S ids said, V words, K ids of required words.
"""

import itertools
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from capfilt.errors import ConfigError
from capfilt.inputs.tokenizer import TextTokenizer
from capfilt.predict.sampling import penalised, unrepeated, unsaid, without
from capfilt.predict.speech import Decoding

Ids = tuple[int, ...]


@dataclass(frozen=True)
class Constraints:
    """Banned and required words as ids, one or more each. What is written counts; a start may hold a banned word."""

    banned: tuple[Ids, ...] = ()
    required: tuple[Ids, ...] = ()


def constraints(decoding: Decoding, tokenizer: TextTokenizer) -> Constraints:
    """The banned and required words of `decoding` as ids.

    Raises ConfigError for a word that the vocabulary cannot spell, and a required one that holds a banned one.
    """
    found = Constraints(_spelled(decoding.banned, tokenizer), _spelled(decoding.required, tokenizer))
    for (banned, no), (required, yes) in itertools.product(
        zip(decoding.banned, found.banned, strict=True), zip(decoding.required, found.required, strict=True)
    ):
        if any(yes[i : i + len(no)] == no for i in range(len(yes))):
            raise ConfigError(f"decoding: the required {required!r} holds the banned {banned!r}; give up one of them")
    return found


def _spelled(words: Sequence[str], tokenizer: TextTokenizer) -> tuple[Ids, ...]:
    never = {tokenizer.pad_id, tokenizer.unk_id, tokenizer.cls_id, tokenizer.sep_id, tokenizer.mask_id}
    never |= {tokenizer.dec_id, tokenizer.enc_id}
    rows = [tuple(ids[1:-1].tolist()) for ids in tokenizer.encode(words, 10**6)]  # so many ids cut nothing
    for word, ids in zip(words, rows, strict=True):
        if not ids or never & set(ids):
            raise ConfigError(f"decoding: the vocabulary cannot spell {word!r}; leave it out of banned and required")
    return tuple(rows)


class Allowed:
    """Scores of the next word after all that forbids or penalises one, in the order of the original's library.

    Where nothing is left that may be said, the text may end, however short.
    """

    def __init__(self, decoding: Decoding, banned: Sequence[Ids], prompt: int, end: int, device: torch.device):
        self.penalty, self.no_repeat = decoding.repetition_penalty, decoding.no_repeat
        self.least, self.prompt, self.end = decoding.least(prompt), prompt, end
        by_length = defaultdict(list)
        for ids in banned:
            by_length[len(ids)].append(ids)
        self.banned = [torch.tensor(rows, device=device) for rows in by_length.values()]

    def __call__(self, scores: Float[Tensor, "r v"], ids: Int[Tensor, "r s"]) -> Float[Tensor, "r v"]:
        """scores: of the word behind `ids`, which hold the start."""
        scores = penalised(scores, ids, self.penalty)
        end = scores[:, self.end].clone() if self.no_repeat or self.banned else None
        if self.no_repeat:
            scores = unrepeated(scores, ids, self.no_repeat)
        for sequences in self.banned:
            scores = unsaid(scores, ids[:, self.prompt :], sequences)
        if ids.shape[1] - self.prompt < self.least:
            scores = without(scores, self.end)
        if end is not None:
            stuck = scores.amax(dim=1) == -math.inf
            scores = scores.clone()
            scores[:, self.end] = torch.where(stuck, end, scores[:, self.end])
        return scores


class Progress:
    """How far texts have come with the required words: states, 0 at the start.

    needs: for each state, the fewest ids that lead to all words.
    most:  the greatest of these: what a text needs that has said none.
    """

    def __init__(self, required: Sequence[Ids], device: torch.device):
        letters = sorted(set(itertools.chain(*required)))
        moves = _moves(required, letters)
        needs = _needs(moves)
        self.most = int(needs[0])
        self.letters = torch.tensor(letters, device=device)
        self.moves = torch.tensor(moves, device=device)
        self.needs = torch.tensor(needs, dtype=torch.int16, device=device)  # small: it is spread over all words

    def after(self, states: Int[Tensor, "b t"], words: Int[Tensor, "b t"]) -> Int[Tensor, "b t"]:
        """The states that words lead to."""
        hit = words[..., None] == self.letters
        letter = torch.where(hit.any(dim=-1), hit.int().argmax(dim=-1), len(self.letters))
        return self.moves[states, letter]

    def needs_after(self, states: Int[Tensor, "b t"], words: int, end: int) -> Int[Tensor, "b t v"]:
        """For each of V next words: how many ids are still needed behind it; `most` + 1 behind an end too early."""
        ahead = self.needs[self.moves[states]]
        needs = ahead[..., -1:].repeat(1, 1, words)
        needs[..., self.letters] = ahead[..., :-1]
        needs[..., end] = torch.where(self.needs[states] == 0, 0, self.most + 1)
        return needs


def _moves(required: Sequence[Ids], letters: list[int]) -> list[list[int]]:
    """moves[state][letter] → state; the last column is for any other id. State 0 is the start."""
    states = [(0,) * len(required)]
    number = {states[0]: 0}
    moves = []
    for state in states:  # grows on the way
        reached = [
            tuple(_matched(ids, done, letter) for ids, done in zip(required, state, strict=True))
            for letter in (*letters, None)
        ]
        for new in reached:
            if number.setdefault(new, len(states)) == len(states):
                states.append(new)
        moves.append([number[new] for new in reached])
    return moves


def _matched(ids: Ids, done: int, letter: int | None) -> int:
    """How many of the first of `ids` a text ends with that ended with `done` of them and then says `letter`."""
    if done == len(ids):  # said once is said
        return done
    said = (*ids[:done], letter)
    return next(k for k in range(len(said), -1, -1) if said[len(said) - k :] == ids[:k])


def _needs(moves: list[list[int]]) -> np.ndarray:
    """Fewest moves from each state to the last one, where every word is said and no move leads away."""
    table = np.array(moves)
    needs = np.where((table == np.arange(len(table))[:, None]).all(axis=1), 0, len(table))
    while True:
        nearer = np.minimum(needs, 1 + needs[table].min(axis=1))
        if (nearer == needs).all():
            return needs
        needs = nearer
