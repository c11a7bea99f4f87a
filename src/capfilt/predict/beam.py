"""Beam search as transformers 4.15 does it, in groups that avoid each other's words, with words that must be said.

Shapes: B images, T live texts of an image in one group, R rows, P ids of the start, S ids written, V words.
"""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor

from capfilt.predict.rules import Allowed, Progress
from capfilt.predict.speech import Decoding, Said, Speech, said


@dataclass
class _Texts:
    """Texts of B images: log-probability so far, or rank (B, T); ids (B, T, P + S); own logps (B, T, S)."""

    score: Tensor
    ids: Tensor
    logps: Tensor

    def take(self, index: Tensor, score: Tensor) -> "_Texts":
        """Texts index[b, t] of each image b, with a new score each."""
        wide = index[..., None]
        return _Texts(
            score,
            self.ids.gather(1, wide.expand(-1, -1, self.ids.shape[-1])),
            self.logps.gather(1, wide.expand(-1, -1, self.logps.shape[-1])),
        )

    def of(self, images: Tensor) -> "_Texts":
        return _Texts(self.score[images], self.ids[images], self.logps[images])


class Search:
    """The groups of all images, word by word; a group is a search of its own, penalised for what earlier ones say.

    progress: with the required words; None where there are none.
    every:    steps from one look at what is done to the next; between them done images say on, unheard.
    """

    def __init__(
        self,
        speech: Speech,
        start: Tensor,
        decoding: Decoding,
        allowed: Allowed,
        progress: Progress | None,
        end: int,
        pad: int,
        every: int,
    ):
        self.speech, self.start, self.decoding, self.every = speech, start, decoding, every
        images, self.prompt = start.shape
        self.room = decoding.room(self.prompt)
        self.going = torch.arange(images, device=start.device)
        self.groups = [_Group(start, decoding, allowed, progress, end, pad) for _ in range(decoding.groups)]
        self.out: list[list[Said]] = [[] for _ in range(images)]

    def run(self) -> list[list[Said]]:
        """For each image its texts: of every group the best, then of every group the second, ..., each text once."""
        logits = self.speech.hear(self.start)
        for step in range(self.room):
            self.speech.follow(self.step(logits, step))
            if step + 1 == self.room:
                break
            if (step + 1) % self.every == 0:
                done = self.done
                left = int((~done).sum())
                if not left:
                    break
                if 2 * left <= len(self.going):
                    self.leave(done)
            words = torch.cat([group.live.ids[:, :, self.prompt + step] for group in self.groups], dim=1)
            logits = self.speech.hear(words.T.flatten()[:, None])
        for group in self.groups:
            group.add_live()
        self.leave(torch.ones_like(self.done))
        return self.out

    @property
    def done(self) -> Tensor:
        """Images, (B,), that every group is done with."""
        return reduce(torch.logical_and, [group.done for group in self.groups])

    def step(self, logits: Tensor, step: int) -> Tensor:
        """Every group takes its next words; returns the row that each live text continues."""
        parts = logits.chunk(len(self.groups)) if step else [logits] * len(self.groups)  # at first all share the start
        rows: list[Tensor] = []
        taken: Tensor | None = None
        for i, (group, part) in enumerate(zip(self.groups, parts, strict=True)):
            malus = None if taken is None else self.decoding.diversity * taken
            rows.append(group.step(part, step, malus) + (i * len(part) if step else 0))
            if len(self.groups) > 1:
                mine = group.taken(step, logits.shape[-1])
                taken = mine if taken is None else taken + mine
        return torch.cat(rows)

    def leave(self, which: Tensor) -> None:
        """These images hand in what was found for them; the others go on without them."""
        found = zip(*(group.hand_in(which) for group in self.groups), strict=True)
        for image, groups in zip(self.going[which].tolist(), found, strict=True):
            once: dict[tuple[int, ...], Said] = {}
            for place in itertools.zip_longest(*groups):
                for text in sorted(filter(None, place), key=lambda text: -text.rank):
                    once.setdefault(text.ids, text)
            self.out[image] = list(once.values())
        stay = (~which).nonzero()[:, 0]
        if len(stay):
            self.speech.keep(stay)
        self.going = self.going[stay]
        for group in self.groups:
            group.keep(stay)


class _Group:
    """One beam search over all images that still go on.

    Of an image's 2·size candidates, ends count only among the first `size`, and the best `size` that do not end live
    on. With required words there is such a choice for every number of ids that a text still needs, so that texts
    compete with their like (arXiv 1704.07138); candidates that need more ids than there is room for are no candidates.
    The search is done when it has `size` texts and no live one can beat them.
    """

    def __init__(
        self, start: Tensor, decoding: Decoding, allowed: Allowed, progress: Progress | None, end: int, pad: int
    ):
        self.allowed, self.progress, self.end = allowed, progress, end
        images, self.prompt = start.shape
        self.room, self.size = decoding.room(self.prompt), decoding.beams // decoding.groups
        self.banks = progress.most + 1 if progress else 1
        self.official = decoding.length_rule == "official"
        self.done = torch.zeros(images, dtype=torch.bool, device=start.device)
        ids = torch.cat((start, start.new_full((images, self.room), pad)), dim=1)[:, None]
        logps = torch.zeros(images, 1, self.room, device=start.device)
        self.live = _Texts(logps[..., 0], ids, logps)
        self.states = torch.zeros_like(ids[..., 0])  # of `progress`
        none = torch.full((images, self.size), -math.inf, device=start.device)
        self.found = self.live.take(torch.zeros_like(none, dtype=torch.long), none)

    def step(self, logits: Tensor, step: int, malus: Tensor | None) -> Tensor:
        """One word more. logits: (T·B, V); malus: (B, V), what earlier groups cost a word. Gives the rows continued."""
        candidates, parents = self.candidates(logits, step, malus)
        ended = candidates.ids[:, :, self.prompt + step] == self.end
        self.finish(candidates, ended, step)
        rows = self.go_on(candidates, parents, ended, step)
        self.stop(candidates, step)
        return rows

    def candidates(self, logits: Tensor, step: int, malus: Tensor | None) -> tuple[_Texts, Tensor]:
        """The best one-word continuations of each image, best first in each bank, and the live text each continues."""
        texts, here = self.live.score.shape[1], self.prompt + step
        own = logits.log_softmax(dim=-1)
        logp = own if malus is None else own - malus.repeat(texts, 1)
        logp = self.allowed(logp, self.live.ids[:, :, :here].transpose(0, 1).flatten(0, 1))
        banks = [self.best(own, bank) for bank in self.in_banks(logp, step)]
        score, parents, word, mine = (torch.cat(columns, dim=1) for columns in zip(*banks, strict=True))
        grown = self.live.take(parents, score)
        grown.ids[:, :, here] = word
        grown.logps[:, :, step] = mine
        return grown, parents

    def in_banks(self, logp: Tensor, step: int) -> Iterator[Tensor]:
        """(T·B, V) bank by bank, -inf in the others; the bank of a candidate is how many ids it still needs."""
        if self.progress is None:
            yield logp
            return
        needs = self.progress.needs_after(self.states.T, logp.shape[1], self.end).flatten(0, 1)
        for bank in range(self.banks):
            yield logp.masked_fill((needs != bank) | (needs > self.room - step - 1), -math.inf)

    def best(self, own: Tensor, logp: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Each image's best candidates, (B, 2·size): score, the live text continued, word, its own logp.

        The best of each text come first, so that no more than these are added up and laid out by image.
        """
        images, texts = self.live.score.shape
        few, words = logp.topk(min(2 * self.size, logp.shape[1]))
        few, words, mine = (x.view(texts, images, -1).transpose(0, 1) for x in (few, words, own.gather(1, words)))
        total = (self.live.score[..., None] + few).flatten(1)
        score, place = total.topk(min(2 * self.size, total.shape[1]))
        parents = place // few.shape[2]
        return score, parents, words.flatten(1).gather(1, place), mine.flatten(1).gather(1, place)

    def finish(self, candidates: _Texts, ended: Tensor, step: int) -> None:
        """Texts that end here, where they are among the first `size`, compete for the places of the found ones."""
        length = self.prompt + step if self.official else step + 1
        counts = ended & ~self.done[:, None]
        counts[:, self.size :] = False
        self.offer(candidates, (candidates.score / length).masked_fill(~counts, -math.inf))

    def go_on(self, candidates: _Texts, parents: Tensor, ended: Tensor, step: int) -> Tensor:
        """The best `size` of each bank that do not end live on; returns the row each of them continues."""
        images, width = len(ended), ended.shape[1] // self.banks
        order = ended.view(images, self.banks, width).int().sort(dim=2, stable=True).indices[..., : self.size]
        if self.banks > 1:
            order = order + width * torch.arange(self.banks, device=order.device)[:, None]
        score = candidates.score.masked_fill(ended, -math.inf).gather(1, order.flatten(1)).view_as(order)
        if order.shape[2] < self.size:  # fewer continuations than beams: the rest is dead
            gap = (0, self.size - order.shape[2])
            order = F.pad(order, gap)
            score = F.pad(score, gap, value=-math.inf)
        order = order.flatten(1)
        self.live = candidates.take(order, score.flatten(1))
        parents = parents.gather(1, order)
        if self.progress is not None:
            self.states = self.progress.after(self.states.gather(1, parents), self.live.ids[:, :, self.prompt + step])
        return (parents * images + torch.arange(images, device=order.device)[:, None]).T.flatten()

    def stop(self, candidates: _Texts, step: int) -> None:
        """Done: as many texts as beams, and the worst is no worse than what the best candidate has so far.

        The old library measures the best candidate, even one that ends; the new one the best that goes on.
        """
        best = self.live.score.amax(dim=1)
        dead = best == -math.inf
        reach = candidates.score.amax(dim=1) / (self.prompt + step) if self.official else best / (step + 1)
        worst = self.found.score.amin(dim=1)
        self.done |= (worst.isfinite() & (worst >= reach)) | dead

    def add_live(self) -> None:
        """At the length limit the live texts of unfinished images count as they are."""
        length = self.prompt + self.room if self.official else self.room
        self.offer(self.live, (self.live.score / length).masked_fill(self.done[:, None], -math.inf))

    def offer(self, texts: _Texts, rank: Tensor) -> None:
        """Keeps the best `size` of what was found and what is offered; rank -inf is no offer."""
        both = _Texts(
            torch.cat((self.found.score, rank), dim=1),
            torch.cat((self.found.ids, texts.ids), dim=1),
            torch.cat((self.found.logps, texts.logps), dim=1),
        )
        score, index = both.score.topk(self.size)
        self.found = both.take(index, score)

    def taken(self, step: int, words: int) -> Tensor:
        """How many live texts of each image have just taken each word, (B, V); none where the group is done."""
        counts = ((self.live.score > -math.inf) & ~self.done[:, None]).float()
        none = counts.new_zeros(len(counts), words)
        return none.scatter_add(1, self.live.ids[:, :, self.prompt + step], counts)

    def hand_in(self, which: Tensor) -> list[list[Said]]:
        """What was found for these images, best first."""
        found = self.found.of(which)
        lists = (found.ids[..., self.prompt :].tolist(), found.logps.tolist(), found.score.tolist())
        return [
            [said(ids, logps, self.end, rank) for ids, logps, rank in zip(*texts, strict=True) if rank > -math.inf]
            for texts in zip(*lists, strict=True)
        ]

    def keep(self, images: Tensor) -> None:
        self.done, self.states = self.done[images], self.states[images]
        self.live, self.found = self.live.of(images), self.found.of(images)
