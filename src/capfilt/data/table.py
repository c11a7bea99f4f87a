"""Pairs in training form: decoded pictures in arrays, texts as token rows, and the batch that belongs to each step.

Shapes: M images of S x S pixels, R rows (image, text), B rows a batch, L tokens.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from capfilt.errors import DataError
from capfilt.inputs.augment import AugmentConfig, augment
from capfilt.inputs.images import normalize, to_pixels
from capfilt.inputs.texts import clean_caption
from capfilt.inputs.tokenizer import TextTokenizer
from capfilt.pair import Batch
from capfilt.runtime import derive, rng


class Chosen:
    """Some of an array's pictures in an order of their own, none of them copied: the array may be a mapped file."""

    def __init__(self, array: "Pictures", index: np.ndarray):
        self.array, self.index = array, index

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, at: int | slice | np.ndarray) -> np.ndarray:
        return np.asarray(self.array[self.index[at]])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self.array[self.index], dtype)


Pictures = np.ndarray | Chosen  # (M, S, S, 3) uint8, in memory or memory-mapped


@dataclass(frozen=True)
class PairTable:
    """R rows of one image and one text each; several rows may share an image.

    pictures: arrays (M_i, S, S, 3) uint8, addressed as if they were one.
    image:    (R,) int64, row → image.
    texts:    R captions.
    """

    pictures: tuple[Pictures, ...]
    image: np.ndarray
    texts: tuple[str, ...]

    def __post_init__(self) -> None:
        if not len(self.texts):
            raise DataError("no pair to learn from: every row was dropped or unreadable")
        if len(self.image) != len(self.texts):
            raise DataError(f"{len(self.image)} images for {len(self.texts)} texts")

    def __len__(self) -> int:
        return len(self.texts)

    @staticmethod
    def of(pictures: Pictures, texts: Sequence[Sequence[str]], picture: np.ndarray | None = None) -> "PairTable":
        """One array of images and, for each, its texts (none, one or several).

        picture: (M,) numbers, equal where two of the images are the same one; all differ if None.
        """
        image = np.repeat(np.arange(len(texts)), [len(t) for t in texts])
        if picture is not None:
            _, first, number = np.unique(picture, return_index=True, return_inverse=True)
            image = first[number][image]
        return PairTable((pictures,), image, tuple(t for ts in texts for t in ts))

    @staticmethod
    def joined(tables: Iterable["PairTable"]) -> "PairTable":
        """All rows of all tables. Tables over the same array keep sharing its images."""
        arrays: list[Pictures] = []
        image: list[np.ndarray] = []
        texts: list[str] = []
        for table in tables:
            for array in table.pictures:
                if not any(array is known for known in arrays):
                    arrays.append(array)
            starts = np.cumsum([0, *(len(a) for a in arrays)])
            own = np.cumsum([0, *(len(a) for a in table.pictures)])
            moved = np.empty_like(table.image)
            for i, array in enumerate(table.pictures):
                here = (table.image >= own[i]) & (table.image < own[i + 1])
                place = next(j for j, known in enumerate(arrays) if known is array)
                moved[here] = table.image[here] - own[i] + starts[place]
            image.append(moved)
            texts.extend(table.texts)
        return PairTable(tuple(arrays), np.concatenate(image), tuple(texts))

    def repeated(self, times: float, seed: int = 0) -> "PairTable":
        """Every row floor(times) times, and a seeded part of them once more: R · times rows in all."""
        whole = int(times)
        extra = rng(seed, "repeat").permutation(len(self))[: round((times - whole) * len(self))]
        rows = np.concatenate((np.tile(np.arange(len(self)), whole), np.sort(extra)))
        return PairTable(self.pictures, self.image[rows], tuple(self.texts[i] for i in rows))

    def picture(self, index: int) -> np.ndarray:
        """Image `index` as (S, S, 3) uint8."""
        for array in self.pictures:
            if index < len(array):
                return array[index]
            index -= len(array)
        raise IndexError(index)


@dataclass(frozen=True)
class Unmatched:
    """Wrong texts that ITM gets beside the hard negatives of the batch, as shares of its wrong-text rows.

    pool: a random text from `texts` (the web pool): so the filter has seen junk.
    near: the row's own text with one word exchanged for another that is used in the same place elsewhere.
    """

    pool: float = 0.0
    near: float = 0.0
    texts: tuple[str, ...] = ()


class Tokens:
    """Texts as one flat token array; texts that read the same, once cleaned and cut, share an id."""

    def __init__(
        self,
        texts: Sequence[str],
        tokenizer: TextTokenizer,
        max_length: int,
        clean: Callable[[str], str] = clean_caption,
    ):
        distinct = list(dict.fromkeys(texts))
        rows = tokenizer.encode([clean(text) for text in distinct], max_length)
        number: dict[bytes, int] = {}
        of_text = {t: number.setdefault(row.tobytes(), len(number)) for t, row in zip(distinct, rows, strict=True)}
        self.id = np.fromiter((of_text[t] for t in texts), dtype=np.int64, count=len(texts))
        self.flat = np.frombuffer(b"".join(number), np.int32)
        self.start = np.cumsum([0, *(len(row) // self.flat.itemsize for row in number)])

    def row(self, text_id: int) -> np.ndarray:
        """Token ids of the texts with this id."""
        return self.flat[self.start[text_id] : self.start[text_id + 1]]


class NearMisses:
    """One word exchanged for another seen between the same two neighbours: texts that are wrong in one thing."""

    def __init__(self, tokens: Tokens):
        self.fits: dict[tuple[int, int], np.ndarray] = {}
        seen: dict[tuple[int, int], set[int]] = {}
        for i in range(len(tokens.start) - 1):
            row = tokens.row(i).tolist()
            for before, word, after in zip(row, row[1:], row[2:], strict=False):
                seen.setdefault((before, after), set()).add(word)
        self.fits = {k: np.array(sorted(v)) for k, v in seen.items() if len(v) > 1}

    def of(self, row: np.ndarray, random: np.random.Generator) -> np.ndarray | None:
        """A near miss of `row`, or None where no word of it can be exchanged."""
        places = [i for i in range(1, len(row) - 1) if (int(row[i - 1]), int(row[i + 1])) in self.fits]
        if not places:
            return None
        i = places[int(random.integers(len(places)))]
        others = self.fits[int(row[i - 1]), int(row[i + 1])]
        others = others[others != row[i]]
        missed = row.copy()
        missed[i] = others[int(random.integers(len(others)))]
        return missed


class Order:
    """Which of R rows belong to a step: all of them in a fresh seeded order each epoch, `size` at a time.

    A step may end one epoch and begin the next.
    """

    def __init__(self, rows: int, size: int, seed: int):
        self.rows, self.size, self.seed = rows, size, seed
        self._orders: dict[int, np.ndarray] = {}

    def at(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """(size,) rows of the step, and (size,) how many came before each since the first step."""
        positions = np.arange(step * self.size, (step + 1) * self.size)
        epochs, places = np.divmod(positions, self.rows)
        rows = np.concatenate([self._order(int(epoch))[places[epochs == epoch]] for epoch in np.unique(epochs)])
        return rows, positions

    def _order(self, epoch: int) -> np.ndarray:
        """The rows in the order of an epoch. Two epochs are remembered: a step may end one and begin the next."""
        if epoch not in self._orders:
            self._orders = dict(list(self._orders.items())[-1:])
            self._orders[epoch] = rng(self.seed, "order", epoch).permutation(self.rows)
        return self._orders[epoch]


@dataclass(frozen=True)
class Feeding:
    """What batches of every kind are made by.

    size:         rows of a step, those of all ranks together.
    seed:         of the rows' order, and of what is drawn for each.
    px:           side of the pictures.
    augmentation: of the pictures; None: only resized.
    """

    size: int
    seed: int
    px: int
    augmentation: AugmentConfig | None = None


def views(pictures: Sequence[np.ndarray], feeding: Feeding, seeds: Sequence[tuple[object, ...]]) -> torch.Tensor:
    """B pictures as the model gets them, (B, 3, px, px) normalised: each augmented by its own seed, or only resized."""
    px, augmentation = feeding.px, feeding.augmentation
    if augmentation is not None:
        seen = [augment(p, px, augmentation, rng(*seed)) for p, seed in zip(pictures, seeds, strict=True)]
    else:
        seen = [p if p.shape[0] == px else to_pixels(p, px) for p in pictures]
    return normalize(np.stack(seen))


class Batches(Dataset):
    """The batch of every step, as a function of the step alone: resuming is starting at another number.

    With several ranks each gets its part of the same joint batch, its texts as long as the longest of all: ranks
    exchange tensors of one shape. `prompt` is what every text is made to start with, once it is cleaned.
    """

    def __init__(
        self,
        table: PairTable,
        tokenizer: TextTokenizer,
        feeding: Feeding,
        max_length: int = 30,
        unmatched: Unmatched | None = None,
        prompt: str = "",
    ):
        if feeding.size < 2:
            raise DataError(f"batch={feeding.size}: contrast and matching need at least 2 pairs a batch")
        self.table, self.tokenizer, self.feeding = table, tokenizer, feeding
        self.size, self.seed = feeding.size, feeding.seed
        self.order = Order(len(table), self.size, self.seed)
        self.tokens = Tokens(table.texts, tokenizer, max_length, lambda text: prompt + clean_caption(text))
        self.unmatched = unmatched or Unmatched()
        self.pool = Tokens(self.unmatched.texts, tokenizer, max_length) if self.unmatched.pool else None
        self.near = NearMisses(self.tokens) if self.unmatched.near else None
        self.rank, self.world = 0, 1

    @property
    def steps_per_epoch(self) -> float:
        """Steps in which every row is seen once."""
        return len(self.table) / self.size

    def describe(self) -> dict[str, int]:
        """What tells these pairs from others: a checkpoint belongs to them."""
        pool = derive(*self.unmatched.texts)
        return {"rows": len(self.table), "texts": derive(*self.table.texts), "pool": pool}

    def __len__(self) -> int:
        return 2**62

    def __getitem__(self, step: int) -> Batch:
        share = self.size // self.world
        mine = slice(self.rank * share, (self.rank + 1) * share)
        rows, positions = self.order.at(step)
        text_ids = self.tokens.id[rows]
        ids, mask = self.tokenizer.pad([self.tokens.row(t) for t in text_ids])
        extra_ids, extra_mask = self._extra(text_ids, positions) or (None, None)
        images = self.table.image[rows[mine]]
        seeds = [(self.seed, "augment", int(position)) for position in positions[mine]]
        return Batch(
            pixels=views([self.table.picture(int(i)) for i in images], self.feeding, seeds),
            ids=torch.as_tensor(ids[mine]),
            mask=torch.as_tensor(mask[mine]),
            image_id=torch.from_numpy(images),
            text_id=torch.from_numpy(text_ids[mine]),
            extra_ids=None if extra_ids is None else torch.as_tensor(extra_ids[mine]),
            extra_mask=None if extra_mask is None else torch.as_tensor(extra_mask[mine]),
        )

    def _extra(self, text_ids: np.ndarray, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """Ids and mask of the unmatched texts; a row without one is all padding. None where no row has one."""
        if self.pool is None and self.near is None:
            return None
        rows: list[np.ndarray] = []
        for text_id, position in zip(text_ids, positions, strict=True):
            random, own = rng(self.seed, "unmatched", int(position)), self.tokens.row(int(text_id))
            kind, row = random.random(), None
            if self.pool is not None and kind < self.unmatched.pool:
                row = self.pool.row(int(random.choice(self.pool.id)))
            elif self.near is not None and kind < self.unmatched.pool + self.unmatched.near:
                row = self.near.of(own, random)
            rows.append(np.zeros(0, np.int32) if row is None or np.array_equal(row, own) else row)
        return self.tokenizer.pad(rows) if any(map(len, rows)) else None
