"""Writing about many images in few slots: where a text ends, the next image takes its place at once.

For greedy and nucleus, one text an image. A start is told id by id like everything else, so that a slot that begins
waits for no other; what comes out is what `decode` writes.

Shapes: S slots, B images, P ids of the start, V words, N image tokens.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from capfilt.blocks.attention import Past, Seen
from capfilt.blocks.med import Med
from capfilt.blocks.past import FixedPast
from capfilt.predict.decode import chosen, looks
from capfilt.predict.recorded import Recorded
from capfilt.predict.sampling import penalised
from capfilt.predict.speech import Decoding, Said, said


@runtime_checkable
class Relay(Protocol):
    """Texts in the making, about images that come and go."""

    def hear(self, ids: Int[Tensor, "s 1"]) -> Float[Tensor, "s v"]:
        """Adds an id to every slot; logits of the word behind it."""
        ...

    def take(self, slots: Int[Tensor, "k"]) -> None:
        """The next k images take these slots, in this order, with nothing said."""
        ...

    def keep(self, slots: Int[Tensor, "k"]) -> None:
        """Only these slots go on."""
        ...


def streams(decoding: Decoding) -> bool:
    """Whether `stream` can write so: no search, and no rule that has to look back over what was said in what order."""
    return decoding.method != "beam" and not (decoding.no_repeat or decoding.banned)


@torch.inference_mode()
def stream(
    speech: Relay,
    start: Int[Tensor, "p"],
    images: int,
    slots: int,
    decoding: Decoding,
    end: int,
    uniforms: Float[Tensor, "b s"] | None = None,
) -> list[Said]:
    """A text for each of B images in S <= B slots. uniforms: numbers in [0, 1), a row an image, for nucleus."""
    return _Slots(speech, start, images, slots, decoding, end, uniforms).run()


class _Slots:
    """What every slot is about and has said. A slot that nobody needs any more is about image -1."""

    def __init__(
        self,
        speech: Relay,
        start: Tensor,
        images: int,
        slots: int,
        decoding: Decoding,
        end: int,
        uniforms: Tensor | None,
    ):
        self.speech, self.images, self.decoding, self.end, self.uniforms = speech, images, decoding, end, uniforms
        self.prompt, self.room = len(start), decoding.room(len(start))
        # What is not said yet reads as the first id: it is seen anyway, so the penalty knows no difference.
        self.blank = torch.cat((start, start[:1].expand(self.room)))
        self.ids = self.blank.repeat(slots, 1)
        self.at = torch.zeros(slots, dtype=torch.long, device=start.device)  # the id that is told next
        self.image = torch.full_like(self.at, -1)
        self.logps = torch.zeros(slots, self.room, device=start.device)
        self.open = torch.ones_like(self.at, dtype=torch.bool)
        self.taken = 0

    def run(self) -> list[Said]:
        """Until nothing is left to say."""
        found: dict[int, Said] = {}
        every, step = looks(self.at.device), 0
        self.begin(torch.arange(len(self.at), device=self.at.device))
        while len(self.at):
            self.step()
            step += 1
            if step % every == 0:
                found.update(self.change())
        return [found[image] for image in range(self.images)]

    def step(self) -> None:
        """One id more in every slot: of the start, or a word."""
        logits = self.speech.hear(self.ids.gather(1, self.at[:, None]))
        count = self.at + 1 - self.prompt  # words written; below 0 the start is still being told
        scores = penalised(logits, self.ids, self.decoding.repetition_penalty).clone()
        scores[:, self.end].masked_fill_(count < self.decoding.least(self.prompt), -math.inf)
        uniforms = None if self.uniforms is None else self.uniforms[self.image, count.clamp(min=0)]
        word, logp = chosen(logits, scores, self.decoding, uniforms)
        writes = self.open & (count >= 0)
        _write(self.ids, self.at + 1, word, writes)
        _write(self.logps, count.clamp(min=0), logp, writes)
        self.at = (self.at + 1).clamp(max=self.ids.shape[1] - 2)  # where slots stay that have ended
        self.open &= ~writes | ((word != self.end) & (count + 1 < self.room))

    def change(self) -> Iterator[tuple[int, Said]]:
        """Hands in the texts that have ended; the next images take their slots, and what is left empty goes at half."""
        over = (~self.open & (self.image >= 0)).nonzero()[:, 0]
        rows = zip(self.ids[over, self.prompt :].tolist(), self.logps[over].tolist(), strict=True)
        yield from zip(self.image[over].tolist(), (said(*row, self.end) for row in rows), strict=True)
        self.image[over] = -1
        self.begin(over)
        left = self.open.nonzero()[:, 0]
        if self.taken == self.images and 2 * len(left) <= len(self.open):
            self.speech.keep(left)
            self.ids, self.logps, self.at = self.ids[left], self.logps[left], self.at[left]
            self.image, self.open = self.image[left], self.open[left]

    def begin(self, slots: Tensor) -> None:
        """The next images take these slots, as far as there are any."""
        slots = slots[: self.images - self.taken]
        if len(slots):
            self.image[slots] = torch.arange(self.taken, self.taken + len(slots), device=slots.device)
            self.ids[slots], self.at[slots], self.open[slots] = self.blank, 0, True
            self.speech.take(slots)
            self.taken += len(slots)


def _write(rows: Tensor, column: Tensor, new: Tensor, where: Tensor) -> None:
    """rows[r, column[r]] = new[r] where where[r]."""
    column = column[:, None]
    rows.scatter_(1, column, torch.where(where[:, None], new[:, None], rows.gather(1, column)))


class BlipRelay:
    """A `Relay` about images that are encoded as they are needed.

    images:  groups of image tokens (n, N, E).
    span:    most positions of a text.
    queries: how many of its positions look at the image in all (see `Med.seen`).
    words:   how many ids may be said.
    """

    def __init__(self, text: Med, images: Iterator[Tensor], slots: int, span: int, queries: int, words: int) -> None:
        self.text, self.images, self.slots, self.queries, self.words = text, images, slots, queries, words
        self.past = FixedPast(slots, span, text.words.weight.device)
        self.held: list[Seen] = []  # what the slots look at
        self.next: list[Seen] = []  # the same of images that are encoded and wait
        self.used = self.ready = 0  # of these images
        self.step = Recorded()

    def hear(self, ids: Int[Tensor, "s 1"]) -> Float[Tensor, "s v"]:
        """As `Relay`."""
        return self.step(self._step, ids)

    def _step(self, ids: Tensor) -> Tensor:
        return word_behind(self.text, ids, self.held, self.past, self.words)

    def take(self, slots: Int[Tensor, "k"]) -> None:
        """As `Relay`."""
        self.past.begin(slots)
        while len(slots):
            if self.used == self.ready:
                image = next(self.images)
                self.next, self.used, self.ready = list(self.text.seen(image, self.queries)), 0, len(image)
            if not self.held:
                self.held = each_once(self.next, lambda seen: seen.new_empty(self.slots, *seen.shape[1:]))
            count = min(len(slots), self.ready - self.used)
            for held, new in zip(_tensors(self.held), _tensors(self.next), strict=True):
                held[slots[:count]] = new[self.used : self.used + count]
            self.used, slots = self.used + count, slots[count:]

    def keep(self, slots: Int[Tensor, "k"]) -> None:
        """As `Relay`."""
        self.step.forget()
        self.past.keep(slots)
        self.held = each_once(self.held, lambda seen: seen[slots])


def word_behind(
    text: Med, ids: Tensor, seen: Sequence[Seen], past: Past, words: int | None, hidden: Tensor | None = None
) -> Tensor:
    """Adds ids (R, L) to every row; logits (R, V) of the word behind them, of the first `words` ids."""
    states = text.speak_on(ids, seen, past, hidden)
    return text.word_logits(states[:, -1])[:, :words].float()


def each_once(seen: Sequence[Seen], work: Callable[[Tensor], Tensor]) -> list[Seen]:
    """The same work on all that layers see, once on what they share."""
    done = {id(part): work(part) for part in _tensors(seen)}
    return [done[id(of)] if isinstance(of, Tensor) else (done[id(of[0])], done[id(of[1])]) for of in seen]


def _tensors(seen: Sequence[Seen]) -> list[Tensor]:
    """What layers see, each tensor once."""
    flat = (part for of in seen for part in ([of] if isinstance(of, Tensor) else of))
    return list({id(part): part for part in flat}.values())
