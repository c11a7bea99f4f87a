"""NLVR statements in training form: drawn ones of known truth, and people's, each batch a function of its step.

A pair is one scene in two orders of its boxes, each folded into a square: what NLVR's dev and test rows show.

Shapes: R statements about B pairs, row r about pair r mod B; pictures of S x S pixels.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch.utils.data import Dataset

from capfilt.data.nlvr.boxes import box_statement
from capfilt.data.nlvr.towers import tower_statement
from capfilt.data.nlvr.words import Say, Statement
from capfilt.data.nlvr.world import COLOURS, ORDERS, Scene, draw_scene, fold, paint, recolour
from capfilt.errors import ConfigError
from capfilt.inputs.images import normalize
from capfilt.inputs.texts import clean_caption
from capfilt.inputs.tokenizer import TextTokenizer
from capfilt.pair import Statements
from capfilt.runtime import derive, rng

SHORT, LONG = 8, 16  # most words of a drawn statement; longer ones are rare among people's, and pad all others
MOST_IDS = 40
VERSION = 1  # of what is drawn: part of a checkpoint's identity
Told = tuple[str, bool]  # a sentence and whether it is true


class DrawnStatements(Dataset):
    """Fresh scenes at each step, and statements about them.

    Most sentences come twice in a step, about a scene in which they are true and one in which they are false: words
    alone tell nothing.

    size:  statements a step, a multiple of `each`.
    each:  statements a scene.
    short: so many steps, the first, have short sentences only: what one word means is learned from them sooner.
    """

    def __init__(self, tokenizer: TextTokenizer, size: int, each: int, seed: int, px: int, short: int = 0):
        if size % each:
            raise ConfigError(f"size={size}: not a multiple of each={each} statements a scene")
        self.tokenizer, self.size, self.each, self.seed, self.px = tokenizer, size, each, seed, px
        self.short = short
        self.rank, self.world = 0, 1

    @property
    def steps_per_epoch(self) -> float:
        """Nothing is seen twice: one epoch has no end, so a thousand steps are called one."""
        return 1000.0

    def describe(self) -> dict[str, int]:
        """What tells this data from other data: a checkpoint belongs to it."""
        return {"drawn": VERSION, "each": self.each, "seed": self.seed, "px": self.px, "short": self.short}

    def __len__(self) -> int:
        return 2**62

    def __getitem__(self, step: int) -> Statements:
        scenes = self.size // self.each
        if scenes % self.world:
            raise ConfigError(f"size={self.size}: {scenes} scenes a step do not divide by {self.world} ranks")
        draw = rng(self.seed, "nlvr", step)
        pairs, told = draw_told(draw, scenes, self.each, SHORT if step < self.short else LONG)
        share = scenes // self.world
        mine = range(self.rank * share, (self.rank + 1) * share)
        orders = [draw.permutation(len(ORDERS))[:2] for _ in pairs]
        strips = {i: paint(pairs[i]) for i in mine}
        pixels = [np.stack([fold(strips[i], self.px, ORDERS[orders[i][side]]) for i in mine]) for side in (0, 1)]
        rows = [told[i][k] for k in range(self.each) for i in mine]
        return as_batch(self.tokenizer, pixels, rows)


class StripStatements(Dataset):
    """People's statements about strips, `size` a step, with `drawn` batches in between so that nothing is forgotten.

    strips: (N, 100, 400, 3) uint8. told: N sentences with their truth. A row is shown in two orders of its boxes, with
    colours exchanged in picture and words alike, and in a mirror with left and right exchanged.
    share: of the steps, how many are people's, in (0, 1].
    """

    def __init__(
        self,
        strips: np.ndarray,
        told: Sequence[Told],
        drawn: DrawnStatements,
        share: float = 0.5,
    ):
        if len(strips) != len(told) or not len(told):
            raise ConfigError(f"{len(strips)} strips and {len(told)} statements; one strip a statement is needed")
        self.strips, self.told, self.drawn, self.share = strips, told, drawn, share
        self.tokenizer, self.size, self.seed, self.px = drawn.tokenizer, drawn.size, drawn.seed, drawn.px
        self.pairs = drawn.size // drawn.each
        self.rank, self.world = 0, 1

    @property
    def steps_per_epoch(self) -> float:
        """Steps in which every row is seen once."""
        return len(self.told) / (self.pairs * self.share)

    def describe(self) -> dict[str, int]:
        """What tells this data from other data: a checkpoint belongs to it."""
        return {**self.drawn.describe(), "rows": len(self.told), "told": derive(*self.told, self.share)}

    def __len__(self) -> int:
        return 2**62

    def __getitem__(self, step: int) -> Statements:
        draw = rng(self.seed, "people", step)
        if draw.random() >= self.share:
            self.drawn.rank, self.drawn.world = self.rank, self.world
            return self.drawn[step]
        rows = draw.permutation(len(self.told))[: self.pairs]
        seen = [seen_anew(draw, self.strips[i], self.told[i], self.px) for i in rows][self.rank :: self.world]
        pixels = [np.stack([pair[side] for pair, _ in seen]) for side in (0, 1)]
        return as_batch(self.tokenizer, pixels, [told for _, told in seen])


def as_batch(tokenizer: TextTokenizer, pixels: Sequence[np.ndarray], told: Sequence[Told]) -> Statements:
    """Two lists of B pictures and R sentences with their truth, as tensors."""
    ids, mask = tokenizer.pad(tokenizer.encode([clean_caption(text, MOST_IDS) for text, _ in told], MOST_IDS))
    return Statements(
        pixels=torch.stack([normalize(side) for side in pixels]),
        ids=torch.from_numpy(ids),
        mask=torch.from_numpy(mask),
        label=torch.tensor([int(truth) for _, truth in told]),
    )


def seen_anew(rng: np.random.Generator, strip: np.ndarray, told: Told, px: int) -> tuple[list[np.ndarray], Told]:
    """A row with other colours, in two other orders, perhaps mirrored: what it says is as true as before."""
    sentence, truth = told
    names = dict(zip(COLOURS, map(str, rng.permutation(list(COLOURS))), strict=True))
    mirror = bool(rng.random() < 0.5)
    words = {**names, **({"left": "right", "right": "left"} if mirror else {})}
    sentence = " ".join(words.get(word, word) for word in clean_caption(sentence, MOST_IDS).split())
    strip = recolour(strip, names)
    orders = rng.permutation(len(ORDERS))[:2]
    return [fold(strip, px, ORDERS[order], mirror) for order in orders], (sentence, truth)


def draw_told(
    rng: np.random.Generator, scenes: int, each: int, words: int = LONG
) -> tuple[list[Scene], list[list[Told]]]:
    """So many scenes, each with `each` sentences of known truth and at most so many words."""
    drawn, say = [draw_scene(rng) for _ in range(scenes)], Say(rng)
    told: list[list[Told]] = [[] for _ in drawn]
    for towers in (True, False):
        kind = [i for i, scene in enumerate(drawn) if scene.towers == towers]
        for i, rows in zip(kind, _tell(say, [drawn[i] for i in kind], each, words), strict=True):
            told[i] = rows
    return drawn, told


def draw_statement(say: Say, towers: bool, words: int = LONG) -> Statement:
    """Any statement about scenes of this kind, of at most so many words."""
    while True:
        about_boxes = not towers or say.chance(0.22)
        statement = box_statement(say, towers) if about_boxes else tower_statement(say)
        if len(statement.text.split()) <= words:
            return statement


def _tell(say: Say, scenes: Sequence[Scene], each: int, words: int) -> list[list[Told]]:
    """Sentences for scenes of one kind: as long as two scenes have room, in pairs of true and false."""
    told: list[list[Told]] = [[] for _ in scenes]
    room = set(range(len(scenes)))
    for _ in range(6 * each * len(scenes)):
        if len(room) < 2:
            break
        statement = draw_statement(say, scenes[0].towers, words)
        found: dict[bool | None, int] = {}
        for i in say.rng.permutation(sorted(room)):
            found.setdefault(statement.truth(scenes[i]), i)
            if True in found and False in found:
                told[found[True]].append((statement.text, True))
                told[found[False]].append((statement.text, False))
                break
        room = {i for i in room if len(told[i]) < each}
    for i in room:
        while len(told[i]) < each:
            told[i].append(_alone(say, scenes[i], words))
    return told


def _alone(say: Say, scene: Scene, words: int) -> Told:
    """A sentence for one scene, as often true as false."""
    wanted = say.chance(0.5)
    while True:
        statement = draw_statement(say, scene.towers, words)
        if statement.truth(scene) == wanted:
            return statement.text, wanted
