"""Statements about two images, and answers that go on with a talk, judged (BLIP, arXiv 2201.12086, §5.5 and §5.6).

Shapes: B rows of two images (H, W, 3) each; B images with T dialogues each.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from capfilt.data.annotations import clean_statement, other_sides
from capfilt.errors import ConfigError
from capfilt.inputs.dialogues import dialogue_ids
from capfilt.inputs.texts import clean_caption
from capfilt.inputs.tokenizer import TextTokenizer
from capfilt.models.blip_nlvr import BlipNlvr
from capfilt.models.blip_visdial import BlipVisdial
from capfilt.predict import feeding
from capfilt.predict.faithful import RIGHT, Faithful
from capfilt.predict.feeding import Pixels, parts, still, to_numpy
from capfilt.runtime import rng


class Reasoner:
    """Judges statements with one BlipNlvr. batch: pairs of images at once; answers do not depend on it."""

    def __init__(self, model: BlipNlvr, tokenizer: TextTokenizer, batch: int = 64, faithful: Faithful = RIGHT) -> None:
        feeding.check_words(model.config.special, model.config.text, tokenizer)
        self.model, self.tokenizer, self.batch, self.faithful = model, tokenizer, batch, faithful
        self.device = next(model.parameters()).device

    def judge(
        self, first: Pixels, second: Pixels, statements: Sequence[str], seeds: Sequence[int] | None = None
    ) -> Float[np.ndarray, "b"]:
        """Probability in [0, 1] that each statement is true of its two images.

        seeds: one a row, needed only where `faithful.random_swap` is on.
        """
        if not len(first) == len(second) == len(statements):
            raise ConfigError(
                f"judge: {len(first)} first images, {len(second)} second ones, {len(statements)} statements; one of "
                "each a row"
            )
        if self.faithful.random_swap:
            if seeds is None or len(seeds) != len(statements):
                raise ConfigError("judge: faithful.random_swap draws by a seed a row; give seeds")
            first, second, statements = _swapped(first, second, statements, seeds)
        rows = self.tokenizer.encode([clean_statement(text) for text in statements], self.model.config.text.positions)
        out, px = np.zeros(len(rows), np.float32), self.model.config.vit.px
        order = np.argsort([len(row) for row in rows], kind="stable")
        most = feeding.images_at_once(self.model.config.vit, self.model.config.text, 2 * self.batch, 1) // 2
        with still(self.model):
            for part in parts(len(rows), max(1, most)):
                at = order[part]
                ids, mask = feeding.padded(self.tokenizer, [rows[i] for i in at], self.device)
                pair = (feeding.as_tensor(pixels[at], px, self.device) for pixels in (first, second))
                out[at] = to_numpy(self.model.logits(ids, mask, self.model.look(*pair)).softmax(dim=-1)[:, 1])
        return out


def _swapped(
    first: np.ndarray, second: np.ndarray, statements: Sequence[str], seeds: Sequence[int]
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Half of the rows, drawn by their seeds, with images exchanged and left and right in their words too.

    A row of one image shown twice stays: it has no other side.
    """
    turn = np.array([rng("swap", seed).random() < 0.5 for seed in seeds], bool)
    turn &= (first != second).any(axis=(1, 2, 3))
    where = turn[:, None, None, None]
    words = [other_sides(text) if turned else text for text, turned in zip(statements, turn, strict=True)]
    return np.where(where, second, first), np.where(where, first, second), words


class Dialogist:
    """Ranks answers with one BlipVisdial. batch: dialogues at once; scores do not depend on it."""

    def __init__(self, model: BlipVisdial, tokenizer: TextTokenizer, batch: int = 256) -> None:
        feeding.check_words(model.config.special, model.config.text, tokenizer)
        self.model, self.tokenizer, self.batch = model, tokenizer, batch
        self.device = next(model.parameters()).device

    def rank(
        self, pixels: Pixels, captions: Sequence[str], dialogues: Sequence[Sequence[Sequence[str]]]
    ) -> list[Float[np.ndarray, "t"]]:
        """For image b, its caption and each of its dialogues: the logit that the last answer is the right one.

        A dialogue is a list of parts, oldest first, the candidate answer last; where it is too long for the model,
        `dialogue_ids` says what goes.
        """
        feeding.check_texts([[""] * len(ds) for ds in dialogues], len(pixels))
        if not dialogues:
            return []
        rows = [dialogue_ids(self.tokenizer, d, self.model.config.text.positions) for ds in dialogues for d in ds]
        owner = np.repeat(np.arange(len(dialogues)), [len(ds) for ds in dialogues])
        told = self.tokenizer.encode([clean_caption(text) for text in captions], self.model.config.text.positions)
        out, special = np.zeros(len(rows), np.float32), self.model.config.special
        nothing = np.array([special.cls, special.sep], np.int32)
        most = feeding.images_at_once(self.model.config.vit, self.model.config.text, self.batch, 1)
        with still(self.model):
            for images, blocks in feeding.plan([len(r) for r in rows], owner, len(pixels), self.batch, most):
                shown = feeding.as_tensor(pixels[images], self.model.config.vit.px, self.device)
                seen = self.model.look(shown, *feeding.padded(self.tokenizer, [told[i] for i in images], self.device))
                for slots in blocks:
                    text = [rows[i] if i >= 0 else nothing for i in slots]
                    ids, mask = feeding.padded(self.tokenizer, text, self.device)
                    logits = to_numpy(self.model.logits(ids, mask, seen))
                    out[slots[slots >= 0]] = (logits[:, 1] - logits[:, 0])[slots >= 0]
        return np.split(out, np.cumsum([len(ds) for ds in dialogues])[:-1])
