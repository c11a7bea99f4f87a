"""Writing texts word by word over anything that can say what comes next; no model is named here.

Rows are laid out so that images need no copies: B images with T texts each are R = T·B rows, and row t·B + b is the
t-th text of image b. A step feeds one id a row; what an image shows is held once by the speaker.

Shapes: B images, T texts an image, R = T·B rows, P ids of the start, S ids written, V words.
"""

import math
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from capfilt.errors import ConfigError
from capfilt.predict.sampling import nucleus, penalised, pick, without


@dataclass(frozen=True)
class Decoding:
    """How texts are written. The defaults are the sampling that BLIP's captioner ran for CapFilt.

    Three of them are silent in the original: its sampling path fixes `repetition_penalty` at 1.1 whatever the caller
    says, its library filters by `top_k` 50 before `top_p`, and its lengths count the start ([DEC] and the prompt).

    method:       `nucleus` draws, `greedy` takes the likeliest word, `beam` searches for the likeliest text.
    max_length:   most ids in a text, end included.
    min_length:   the end is forbidden until a text has so many ids.
    count_prompt: both lengths count the ids of the start too.
    top_p, top_k, temperature: what nucleus draws from; top_k 0 is no limit. Ignored by greedy and beam.
    repetition_penalty: 1 is none. It acts on logits (nucleus, greedy) or log-probabilities (beam) of all ids seen.
    beams:        live texts an image in beam search, and the most it returns.
    length_rule:  what beam search divides a text's log-probability by. `official` (transformers 4.15, which BLIP pins):
                  ids with the start, without the end. `hf` (transformers 5): ids written, the end included.
    """

    method: Literal["nucleus", "beam", "greedy"] = "nucleus"
    max_length: int = 20
    min_length: int = 5
    count_prompt: bool = True
    top_p: float = 0.9
    top_k: int = 50
    temperature: float = 1.0
    repetition_penalty: float = 1.1
    beams: int = 3
    length_rule: Literal["official", "hf"] = "official"

    def __post_init__(self) -> None:
        rules = (
            (0 <= self.min_length <= self.max_length, "0 <= min_length <= max_length", "min_length"),
            (0 < self.top_p <= 1, "0 < top_p <= 1", "top_p"),
            (self.top_k >= 0, "top_k >= 0 (0 is no limit)", "top_k"),
            (self.temperature > 0, "temperature > 0 (for the likeliest word use method='greedy')", "temperature"),
            (self.repetition_penalty > 0, "repetition_penalty > 0 (1 is none)", "repetition_penalty"),
            (self.beams >= 1, "beams >= 1", "beams"),
        )
        for holds, rule, name in rules:
            if not holds:
                raise ConfigError(f"decoding: {name}={getattr(self, name)}, but {rule} must hold")

    def room(self, start: int) -> int:
        """Most ids that may be written behind a start of `start` ids. Raises ConfigError where that is none."""
        room = self.max_length - start * self.count_prompt
        if room < 1:
            raise ConfigError(
                f"decoding: max_length={self.max_length} leaves no room behind a start of {start} ids; raise it, "
                "or set count_prompt=false"
            )
        return room

    def least(self, start: int) -> int:
        """How many ids must be written before the end may come."""
        return max(0, self.min_length - start * self.count_prompt)


NUCLEUS = Decoding()
BEAM = Decoding(method="beam", repetition_penalty=1.0)
NOCAPS = Decoding(method="beam", repetition_penalty=1.1)


@runtime_checkable
class Speech(Protocol):
    """Texts in the making: it remembers what every row has said."""

    def hear(self, ids: Int[Tensor, "r l"]) -> Float[Tensor, "r v"]:
        """Adds ids to every row; logits of the word after the last. L > 1 only the first time, when R = B."""
        ...

    def follow(self, rows: Int[Tensor, "r"]) -> None:
        """From now on row r continues what row rows[r], of the same image, has said; R may change."""
        ...

    def keep(self, images: Int[Tensor, "b"]) -> None:
        """Only these images, in this order, go on with all their rows."""
        ...


@dataclass(frozen=True)
class Said:
    """One text: what was written behind the start.

    ids:   the end included where it was written.
    logps: log-probability of each id under the model itself, before penalties and filters.
    rank:  what beam search sorts by (its penalised log-probability over its length rule); elsewhere the score.
    """

    ids: tuple[int, ...]
    logps: tuple[float, ...]
    rank: float

    @property
    def score(self) -> float:
        """Mean log-probability of an id."""
        return math.fsum(self.logps) / len(self.logps)


@torch.inference_mode()
def decode(
    speech: Speech,
    start: Int[Tensor, "b p"],
    decoding: Decoding,
    end: int,
    pad: int,
    uniforms: Float[Tensor, "r s"] | None = None,
) -> list[list[Said]]:
    """Writes on from `start`; for each of B images its texts: as drawn, or best first (beam: up to `beams` of them).

    end, pad: the id that ends a text, and one that is fed to rows that have ended.
    uniforms: numbers in [0, 1), one a row and id, for nucleus; R = T·B rows give T texts an image.

    Raises ConfigError where the start leaves no room, or nucleus lacks its numbers.
    """
    room = decoding.room(start.shape[1])
    if decoding.method == "beam":
        return _Search(speech, start, decoding, end, pad).run()
    if decoding.method == "greedy":
        return _write(speech, start, decoding, end, pad, None)
    if uniforms is None or len(uniforms) == 0 or len(uniforms) % len(start) or uniforms.shape[1] < room:
        got = None if uniforms is None else tuple(uniforms.shape)
        raise ConfigError(f"nucleus: needs uniforms (times {len(start)} images, at least {room} ids), got {got}")
    return _write(speech, start, decoding, end, pad, uniforms)


def _write(
    speech: Speech, start: Tensor, decoding: Decoding, end: int, pad: int, uniforms: Tensor | None
) -> list[list[Said]]:
    """Greedy or nucleus. Rows that have ended say `pad`; once half of the images have ended, those leave the batch."""
    images, prompt = start.shape
    room, least = decoding.room(prompt), decoding.least(prompt)
    texts = 1 if uniforms is None else len(uniforms) // images
    going = torch.arange(images, device=start.device)
    rows = torch.arange(texts * images, device=start.device)
    ids = torch.cat((start.repeat(texts, 1), start.new_full((len(rows), room), pad)), dim=1)
    logps = torch.zeros(len(rows), room, device=start.device)
    open_ = torch.ones(len(rows), dtype=torch.bool, device=start.device)
    logits = speech.hear(start)
    if texts > 1:
        speech.follow(going.repeat(texts))
        logits = logits.repeat(texts, 1)
    for step in range(room):
        here = prompt + step
        scores = penalised(logits, ids[rows, :here], decoding.repetition_penalty)
        scores = without(scores, end) if step < least else scores
        if uniforms is None:
            word = scores.argmax(dim=-1)
        else:
            drawable = nucleus(scores, decoding.top_k, decoding.top_p, decoding.temperature)
            word = pick(*drawable, uniforms[rows, step])
        logp = logits.gather(1, word[:, None])[:, 0] - logits.logsumexp(dim=-1)
        ids[rows, here] = torch.where(open_[rows], word, pad)
        logps[rows, step] = torch.where(open_[rows], logp, 0.0)
        open_[rows] &= word != end
        alive = open_.view(texts, images).any(dim=0)[going]
        left = int(alive.sum())
        if not left or step + 1 == room:
            break
        if 2 * left <= len(going):
            speech.keep(alive.nonzero()[:, 0])
            going = going[alive]
            rows = (torch.arange(texts, device=going.device)[:, None] * images + going).flatten()
        logits = speech.hear(ids[rows, here, None])
    said = [_said(*pair, end) for pair in zip(ids[:, prompt:].tolist(), logps.tolist(), strict=True)]
    return [said[image::images] for image in range(images)]


def _said(ids: list[int], logps: list[float], end: int, rank: float | None = None) -> Said:
    count = ids.index(end) + 1 if end in ids else len(ids)
    kept = tuple(logps[:count])
    return Said(tuple(ids[:count]), kept, math.fsum(kept) / count if rank is None else rank)


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


class _Search:
    """Beam search as transformers 4.15 does it.

    Of an image's 2·beams candidates, ends count only among the first `beams`, and the best `beams` that do not end live
    on. The image is done when it has `beams` texts and no live one can beat them.
    """

    def __init__(self, speech: Speech, start: Tensor, decoding: Decoding, end: int, pad: int):
        self.speech, self.start, self.decoding, self.end = speech, start, decoding, end
        images, self.prompt = start.shape
        self.room, self.least = decoding.room(self.prompt), decoding.least(self.prompt)
        self.going = torch.arange(images, device=start.device)
        self.done = torch.zeros(images, dtype=torch.bool, device=start.device)
        ids = torch.cat((start, start.new_full((images, self.room), pad)), dim=1)[:, None]
        logps = torch.zeros(images, 1, self.room, device=start.device)
        self.live = _Texts(logps[..., 0], ids, logps)
        none = torch.full((images, decoding.beams), -math.inf, device=start.device)
        self.found = self.live.take(torch.zeros_like(none, dtype=torch.long), none)
        self.out: list[list[Said]] = [[] for _ in range(images)]

    def run(self) -> list[list[Said]]:
        logits = self.speech.hear(self.start)
        for step in range(self.room):
            candidates, parents = self.candidates(logits, step)
            ended = candidates.ids[:, :, self.prompt + step] == self.end
            self.finish(candidates, ended, step)
            rows = self.go_on(candidates, parents, ended)
            self.stop(candidates, step)
            left = int((~self.done).sum())
            if not left or step + 1 == self.room:
                break
            self.speech.follow(rows)
            if 2 * left <= len(self.going):
                self.leave(self.done)
            logits = self.speech.hear(self.live.ids[:, :, self.prompt + step].T.flatten()[:, None])
        self.add_live()
        self.leave(torch.ones_like(self.done))
        return self.out

    def candidates(self, logits: Tensor, step: int) -> tuple[_Texts, Tensor]:
        """The 2·beams best one-word continuations of each image, best first, and the live text each continues."""
        images, texts = self.live.score.shape
        here, words = self.prompt + step, logits.shape[-1]
        own = logits.log_softmax(dim=-1).view(texts, images, words).transpose(0, 1).flatten(0, 1)
        logp = penalised(own, self.live.ids[:, :, :here].flatten(0, 1), self.decoding.repetition_penalty)
        logp = without(logp, self.end) if step < self.least else logp
        total = (self.live.score.flatten()[:, None] + logp).view(images, texts * words)
        score, place = total.topk(min(2 * self.decoding.beams, texts * words))
        parents, word = place // words, place % words
        grown = self.live.take(parents, score)
        grown.ids[:, :, here] = word
        grown.logps[:, :, step] = own.view(images, texts * words).gather(1, place)
        return grown, parents

    def finish(self, candidates: _Texts, ended: Tensor, step: int) -> None:
        """Texts that end here, where they are among the first `beams`, compete for the places of the found ones."""
        length = self.prompt + step if self.decoding.length_rule == "official" else step + 1
        counts = ended & ~self.done[:, None]
        counts[:, self.decoding.beams :] = False
        self.offer(candidates, (candidates.score / length).masked_fill(~counts, -math.inf))

    def go_on(self, candidates: _Texts, parents: Tensor, ended: Tensor) -> Tensor:
        """The best `beams` that do not end live on; returns the row each of them continues."""
        images, texts = self.going.numel(), self.decoding.beams
        order = ended.int().sort(dim=1, stable=True).indices[:, :texts]
        score = candidates.score.masked_fill(ended, -math.inf).gather(1, order)
        if order.shape[1] < texts:  # fewer continuations than beams: the rest is dead
            gap = (0, texts - order.shape[1])
            order = F.pad(order, gap)
            score = F.pad(score, gap, value=-math.inf)
        self.live = candidates.take(order, score)
        return (parents.gather(1, order) * images + torch.arange(images, device=order.device)[:, None]).T.flatten()

    def stop(self, candidates: _Texts, step: int) -> None:
        """Done: as many texts as beams, and the worst is no worse than what the best candidate has so far.

        The old library measures the best candidate, even one that ends; the new one the best that goes on.
        """
        if self.decoding.length_rule == "official":
            reach = candidates.score[:, 0] / (self.prompt + step)
        else:
            reach = self.live.score[:, 0] / (step + 1)
        worst = self.found.score.min(dim=1).values
        dead = self.live.score[:, 0] == -math.inf
        self.done |= (worst.isfinite() & (worst >= reach)) | dead

    def add_live(self) -> None:
        """At the length limit the live texts of unfinished images count as they are."""
        length = self.prompt + self.room if self.decoding.length_rule == "official" else self.room
        self.offer(self.live, (self.live.score / length).masked_fill(self.done[:, None], -math.inf))

    def offer(self, texts: _Texts, rank: Tensor) -> None:
        """Keeps the best `beams` of what was found and what is offered; rank -inf is no offer."""
        both = _Texts(
            torch.cat((self.found.score, rank), dim=1),
            torch.cat((self.found.ids, texts.ids), dim=1),
            torch.cat((self.found.logps, texts.logps), dim=1),
        )
        score, index = both.score.topk(self.decoding.beams)
        self.found = both.take(index, score)

    def leave(self, which: Tensor) -> None:
        """These images hand in what they found; the others go on without them."""
        out = self.found.of(which)
        parts = zip(out.ids[..., self.prompt :].tolist(), out.logps.tolist(), out.score.tolist(), strict=True)
        for image, (ids, logps, ranks) in zip(self.going[which].tolist(), parts, strict=True):
            found = zip(ids, logps, ranks, strict=True)
            self.out[image] = [_said(i, p, self.end, rank) for i, p, rank in found if rank > -math.inf]
        stay = (~which).nonzero()[:, 0]
        if len(stay):
            self.speech.keep(stay)
        self.going, self.done = self.going[stay], self.done[stay]
        self.live, self.found = self.live.of(stay), self.found.of(stay)
