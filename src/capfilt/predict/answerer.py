"""Answers to questions about images (BLIP, arXiv 2201.12086, §5.4): chosen from candidates, or generated.

Shapes: B images or clips of (H, W, 3), Q questions of L ids, C candidates of M ids, K of them judged whole, D width.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from capfilt.abilities import Answer
from capfilt.blocks.attention import KeysValues, mask_bias
from capfilt.errors import ConfigError, DataError
from capfilt.inputs.texts import clean_question
from capfilt.inputs.tokenizer import TextTokenizer
from capfilt.models.blip_vqa import BlipVqa
from capfilt.objectives.language import SmoothingRule, next_labels, text_losses
from capfilt.predict import feeding
from capfilt.predict.decode import Decoding, constraints, decode, live
from capfilt.predict.faithful import RIGHT, Faithful
from capfilt.predict.feeding import Pixels, joined, see, still
from capfilt.predict.predictor import BlipSpeech, frames_of

ANSWERS = Decoding(method="beam", max_length=10, min_length=1, repetition_penalty=1.0)  # the original's `generate`
SMOOTHING = 0.1
K = 128
NONE = Answer("", 0.0, -math.inf, error="no text keeps every rule that the decoding sets")
OTHERS = 4  # runners-up that an answer names


@dataclass(frozen=True)
class Heard:
    """Q questions as the answer decoder sees them: keys and values of every layer, and where they only pad."""

    kv: list[KeysValues]
    hidden: Float[Tensor, "q 1 1 l"] | None

    def repeated(self, owner: Int[Tensor, "a"]) -> "Heard":
        """Row a is question owner[a]."""
        hidden = None if self.hidden is None else self.hidden[owner]
        return Heard([(k[owner], v[owner]) for k, v in self.kv], hidden)


@dataclass(frozen=True)
class Ranked:
    """What `rank` found, best first.

    ids:    (Q, K) candidates judged in full.
    scores: (Q, K) their scores.
    first:  (Q, C) probability of every candidate's first id.
    """

    ids: Int[Tensor, "q k"]
    scores: Float[Tensor, "q k"]
    first: Float[Tensor, "q c"]


def rank(
    model: BlipVqa,
    heard: Heard,
    ids: Int[Tensor, "c m"],
    mask: Int[Tensor, "c m"],
    k: int = K,
    smoothing: float = 0.0,
    rule: SmoothingRule = "modern",
) -> Ranked:
    """Scores the k candidates whose first ids are likeliest, for each question; of equals the earlier stands first.

    A score is a candidate's log-probability, its end included, not divided by its length. With `smoothing` it is minus
    its smoothed loss, and `rule` decides about padding (`objectives.language.text_losses`).
    """
    questions = len(heard.kv[0][0])
    start = torch.full((questions, 1), model.config.special.dec, device=ids.device)
    first = model.answer_logits(start, torch.ones_like(start), heard.kv, heard.hidden)[:, 0].softmax(dim=-1)[
        :, ids[:, 1]
    ]
    chosen = first.sort(dim=1, descending=True, stable=True).indices[:, :k]
    scores = []
    for q in range(questions):  # the K answers of one question share its keys and values: no copy a candidate
        of_one = heard.repeated(torch.tensor([q], device=ids.device))
        rows, shown = ids[chosen[q]], mask[chosen[q]]
        if rule == "modern":  # padding counts for nothing, so it need not be computed
            longest = int(shown.sum(dim=1).max())
            rows, shown = rows[:, :longest], shown[:, :longest]
        logits = model.answer_logits(rows, shown, of_one.kv, of_one.hidden)[:, :-1]
        scores.append(-text_losses(logits, next_labels(rows, shown), smoothing, rule))
    found = torch.stack(scores)
    order = found.sort(dim=1, descending=True, stable=True)
    return Ranked(chosen.gather(1, order.indices), order.values, first)


class Answerer:
    """Answers questions with one BlipVqa.

    batch:      questions worked on at once; answers do not depend on it, unless `faithful.question_padding` is on.
    max_length: longer questions are cut to so many ids, [CLS] and [SEP] included.
    """

    def __init__(
        self,
        model: BlipVqa,
        tokenizer: TextTokenizer,
        batch: int = 64,
        max_length: int = 35,
        faithful: Faithful = RIGHT,
    ) -> None:
        feeding.check_words(model.config.special, model.config.text, tokenizer)
        self.model, self.tokenizer, self.batch, self.faithful = model, tokenizer, batch, faithful
        self.max_length = min(max_length, model.config.text.positions)
        self.device = next(model.parameters()).device

    def ask(
        self,
        pixels: Pixels,
        questions: Sequence[Sequence[str]],
        candidates: Sequence[str] | None = None,
        k: int = K,
        decoding: Decoding = ANSWERS,
    ) -> list[list[Answer]]:
        """For image b and each of its questions an answer: the best of `candidates`, or where None a generated one.

        k: candidates judged in full, chosen by their first id. Raises ConfigError for an empty list of candidates,
        DataError for one that cannot be written with the model's positions.
        """
        feeding.check_texts(questions, len(pixels))
        if k < 1:
            raise ConfigError(f"k={k}: at least one candidate must be judged in full")
        if decoding.method == "nucleus":
            raise ConfigError("decoding: answers are searched, not drawn; use beams= (1 for the likeliest words)")
        if 1 + decoding.room(1) > self.model.config.text.positions:
            raise ConfigError(
                f"decoding: max_length={decoding.max_length} passes the model's {self.model.config.text.positions} "
                "positions; lower it"
            )
        flat = [clean_question(q) for qs in questions for q in qs]
        rows = self.tokenizer.encode(flat, self.max_length)
        owner = np.repeat(np.arange(len(questions)), [len(qs) for qs in questions])
        listed = None if candidates is None else self._candidates(candidates)
        found: list[Answer | None] = [None] * len(rows)
        with still(self.model):
            for at, heard in self._heard(pixels, rows, owner):
                if listed is None or candidates is None:
                    answers = self._generated(heard, len(at), decoding)
                else:
                    answers = self._chosen(heard, candidates, *listed, k)
                for i, answer in zip(at.tolist(), answers, strict=True):
                    found[i] = answer
        answered = (answer for answer in found if answer is not None)
        return [[next(answered) for _ in qs] for qs in questions]

    def _candidates(self, candidates: Sequence[str]) -> tuple[Tensor, Tensor]:
        if isinstance(candidates, str) or not candidates:
            raise ConfigError(
                f"candidates={candidates!r}: a list with at least one answer is needed; leave it out to have answers "
                "generated"
            )
        rows, limit = self.tokenizer.encode(list(candidates), 10**6), self.model.config.text.positions
        for text, row in zip(candidates, rows, strict=True):
            if not 3 <= len(row) <= limit:
                why = "holds no word" if len(row) < 3 else f"has {len(row)} ids, the model {limit} positions"
                raise DataError(f"candidates: {text[:60]!r} {why}; leave it out")
        return feeding.padded(self.tokenizer, rows, self.device)

    def _heard(
        self, pixels: Pixels, rows: list[np.ndarray], owner: Int[np.ndarray, "q"]
    ) -> Iterator[tuple[np.ndarray, Heard]]:
        """(numbers of questions, what the decoder hears of them), every image encoded once."""
        model, frames = self.model, frames_of(pixels)
        most = feeding.images_at_once(model.config.vit, model.config.text, self.batch, 1, frames)
        special = model.config.special
        nothing = np.array([special.cls, special.sep], np.int32)
        for images, blocks in feeding.plan([len(row) for row in rows], owner, len(pixels), self.batch, most):
            shown = feeding.as_tensor(pixels[images], model.config.vit.px, self.device)
            seen = model.text.project(joined(see(model.vit, shown)))
            for slots in blocks:
                real = torch.from_numpy(slots >= 0).to(self.device)
                asked = [rows[i] if i >= 0 else nothing for i in slots]
                ids, mask = feeding.padded(self.tokenizer, asked, self.device)
                states = model.question(ids, mask, seen, marked=not self.faithful.question_cls)[real]
                hidden = mask_bias(mask[real], False, states.dtype)
                yield slots[slots >= 0], Heard(model.answer.project(states), hidden)

    def _chosen(self, heard: Heard, candidates: Sequence[str], ids: Tensor, mask: Tensor, k: int) -> list[Answer]:
        smoothing = SMOOTHING if self.faithful.rank_smoothing else 0.0
        rule: SmoothingRule = "torch110" if smoothing and self.faithful.rank_torch110 else "modern"
        ranked = rank(self.model, heard, ids, mask, k, smoothing, rule)
        shares = ranked.scores.softmax(dim=1)
        answers = []
        for chosen, scores, confidence in zip(
            ranked.ids.tolist(), ranked.scores.tolist(), shares.tolist(), strict=True
        ):
            named = [(candidates[i], share) for i, share in zip(chosen, confidence, strict=True)]
            answers.append(Answer(*named[0], scores[0], tuple(named[1 : OTHERS + 1])))
        return answers

    def _generated(self, heard: Heard, count: int, decoding: Decoding) -> list[Answer]:
        special, model = self.model.config.special, self.model
        hidden = None if self.faithful.question_padding else heard.hidden
        words = constraints(decoding, self.tokenizer)
        span = 1 + live(decoding, words) * decoding.room(1)
        speech = BlipSpeech(model.answer, heard.kv, len(self.tokenizer), hidden, span)
        start = torch.full((count, 1), special.dec, device=self.device)
        answers = []
        for said in decode(speech, start, decoding, special.sep, special.pad, None, words):
            sums = [math.fsum(s.logps) for s in said]
            named = [(self.tokenizer.decode(s.ids), math.exp(total)) for s, total in zip(said, sums, strict=True)]
            answers.append(Answer(*named[0], sums[0], tuple(named[1 : OTHERS + 1])) if named else NONE)
        return answers
