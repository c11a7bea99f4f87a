"""Questions, statements and dialogues in training form, and the batch of each that belongs to a step.

As `table.Batches`, a batch is a function of its step alone, and every draw hangs on a row's place in the run. With
several ranks each gets its rows of the joint batch, texts padded as in the joint one.

Shapes: M images of S x S pixels, R rows, B rows a batch.
"""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from capfilt.data.annotations import Asked, Dialog, Stated, clean_statement, other_sides
from capfilt.data.pictures import Album
from capfilt.data.table import Feeding, Order, Pictures, Tokens, views
from capfilt.errors import DataError
from capfilt.inputs.dialogues import dialogue_ids
from capfilt.inputs.texts import clean_question
from capfilt.inputs.tokenizer import TextTokenizer
from capfilt.pair import Dialogues, Questions, Statements
from capfilt.runtime import derive, rng


@dataclass(frozen=True)
class QuestionTable:
    """R questions, each about one image. image: (R,) row → image; answers and their weights: at least one a row."""

    pictures: Pictures
    image: np.ndarray
    questions: tuple[str, ...]
    answers: tuple[tuple[str, ...], ...]
    weights: tuple[tuple[float, ...], ...]

    def __len__(self) -> int:
        return len(self.questions)

    @staticmethod
    def of(asked: Sequence[Asked], album: Album) -> "QuestionTable":
        """The questions that have an answer and whose image could be read; a warning counts the others."""
        rows = _usable(asked, [bool(a.answers) and a.image in album.place for a in asked], "an answer")
        image = np.array([album.place[a.image] for a in rows], np.int64)
        questions = tuple(a.question for a in rows)
        return QuestionTable(
            album.pictures, image, questions, tuple(a.answers for a in rows), tuple(a.weights for a in rows)
        )

    def describe(self) -> dict[str, int]:
        """What tells these rows from others."""
        answers = derive(*chain(*self.answers), *chain(*self.weights), *self.image)
        return {"rows": len(self), "questions": derive(*self.questions), "answers": answers}


@dataclass(frozen=True)
class StatementTable:
    """R statements about two images. first, second: (R,) row → image; labels: (R,) bool, True where it is true."""

    pictures: Pictures
    first: np.ndarray
    second: np.ndarray
    sentences: tuple[str, ...]
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.sentences)

    @staticmethod
    def of(stated: Sequence[Stated], album: Album) -> "StatementTable":
        """The statements of known truth whose images could be read; a statement about one image shows it twice."""
        pairs = [(s.first, s.first if s.second is None else s.second) for s in stated]
        good = [
            s.label is not None and all(image in album.place for image in pair)
            for s, pair in zip(stated, pairs, strict=True)
        ]
        rows = _usable(stated, good, "a label")
        places = [[album.place[image] for image in pair] for pair, ok in zip(pairs, good, strict=True) if ok]
        first, second = np.array(places, np.int64).T
        sentences, labels = tuple(s.sentence for s in rows), np.array([bool(s.label) for s in rows])
        return StatementTable(album.pictures, first, second, sentences, labels)

    def describe(self) -> dict[str, int]:
        """What tells these rows from others."""
        truth = derive(*self.first, *self.second, *self.labels)
        return {"rows": len(self), "sentences": derive(*self.sentences), "truth": truth}


@dataclass(frozen=True)
class DialogueTable:
    """R questions in dialogues, each with options to answer it.

    image: (R,) row → image.
    said:  what was said before, question by question with its answer, and then the question itself.
    right: (R,) which of the row's options is the answer.
    """

    pictures: Pictures
    image: np.ndarray
    captions: tuple[str, ...]
    said: tuple[tuple[str, ...], ...]
    options: tuple[tuple[str, ...], ...]
    right: np.ndarray

    def __len__(self) -> int:
        return len(self.captions)

    @staticmethod
    def of(dialogs: Sequence[Dialog], album: Album) -> "DialogueTable":
        """The rounds with an answer among their options, of dialogs whose image could be read."""
        turns = [(dialog, turn) for dialog in dialogs for turn in range(len(dialog.rounds))]
        good = [d.image in album.place and d.rounds[t].right is not None for d, t in turns]
        rows = _usable(turns, good, "an answer")
        return DialogueTable(
            album.pictures,
            np.array([album.place[d.image] for d, _ in rows], np.int64),
            tuple(d.caption for d, _ in rows),
            tuple(said_before(d, t) for d, t in rows),
            tuple(d.rounds[t].options for d, t in rows),
            np.array([d.rounds[t].right for d, t in rows], np.int64),
        )

    def describe(self) -> dict[str, int]:
        """What tells these rows from others."""
        asked = derive(*(said[-1] for said in self.said))
        answers = derive(*(options[i] for options, i in zip(self.options, self.right, strict=True)), *self.image)
        return {"rows": len(self), "questions": asked, "answers": answers}


Table = QuestionTable | StatementTable | DialogueTable


def said_before(dialog: Dialog, turn: int) -> tuple[str, ...]:
    """What was said before an answer: earlier questions with their answers, and the question."""
    return (*chain.from_iterable(dialog.history(turn)), dialog.rounds[turn].question)


def _usable(rows: Sequence, good: Sequence[bool], what: str) -> list:
    kept = [row for row, ok in zip(rows, good, strict=True) if ok]
    if not kept:
        raise DataError(f"none of {len(rows)} rows can be learned from: each lacks {what} or an image that can be read")
    if len(kept) < len(rows):
        warnings.warn(
            f"{len(rows) - len(kept)} of {len(rows)} rows left out: they lack {what} or a readable image", stacklevel=3
        )
    return kept


class TaskBatches(Dataset, ABC):
    """What the three kinds below share: rows in a fresh seeded order each epoch, `size` a step, cut up by rank."""

    def __init__(
        self,
        table: Table,
        tokenizer: TextTokenizer,
        feeding: Feeding,
    ):
        self.pictures, self.tokenizer, self.feeding = table.pictures, tokenizer, feeding
        self.size, self.seed = feeding.size, feeding.seed
        self.order, self.about = Order(len(table), self.size, self.seed), table.describe()
        self.rank, self.world = 0, 1

    @property
    def steps_per_epoch(self) -> float:
        """Steps in which every row is seen once."""
        return self.order.rows / self.size

    def describe(self) -> dict[str, int]:
        """What tells this data from other data: a checkpoint belongs to it."""
        return self.about

    def __len__(self) -> int:
        return 2**62

    def __getitem__(self, step: int) -> Questions | Statements | Dialogues:
        rows, positions = self.order.at(step)
        share = self.size // self.world
        return self.batch(rows, positions, slice(self.rank * share, (self.rank + 1) * share))

    @abstractmethod
    def batch(self, rows: np.ndarray, positions: np.ndarray, mine: slice) -> Questions | Statements | Dialogues:
        """The `mine` part of the joint batch of these rows; positions seed what is drawn for each."""

    def shown(self, images: np.ndarray, positions: np.ndarray, side: str = "") -> Tensor:
        """(B, 3, px, px) of these images, normalised. side: what tells apart two images of one row."""
        seeds = [(self.seed, f"augment{side}", int(position)) for position in positions]
        return views([self.pictures[int(i)] for i in images], self.feeding, seeds)

    def padded(self, rows: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
        """Rows of ids as ids and mask."""
        ids, mask = self.tokenizer.pad(rows)
        return torch.from_numpy(ids), torch.from_numpy(mask)


class QuestionBatches(TaskBatches):
    """B questions a step with all their answers.

    max_length:    questions are cut to so many ids.
    answer_length: answers are cut to so many; the original does not cut them, the model's positions do.
    """

    def __init__(
        self,
        table: QuestionTable,
        tokenizer: TextTokenizer,
        feeding: Feeding,
        max_length: int = 35,
        answer_length: int = 512,
    ):
        super().__init__(table, tokenizer, feeding)
        self.image = table.image
        self.questions = Tokens(table.questions, tokenizer, max_length, clean_question)
        self.answers = Tokens(list(chain(*table.answers)), tokenizer, answer_length, str)
        self.weight = torch.tensor(list(chain(*table.weights)), dtype=torch.float32)
        self.start = np.cumsum([0, *map(len, table.answers)])

    def batch(self, rows: np.ndarray, positions: np.ndarray, mine: slice) -> Questions:
        """As `TaskBatches.batch`."""
        ids, mask = self.padded([self.questions.row(i) for i in self.questions.id[rows]])
        counts = self.start[rows + 1] - self.start[rows]
        which = np.concatenate([np.arange(self.start[row], self.start[row + 1]) for row in rows])
        answer_ids, answer_mask = self.padded([self.answers.row(i) for i in self.answers.id[which]])
        owner = np.repeat(np.arange(len(rows)), counts)
        own = np.flatnonzero((owner >= mine.start) & (owner < mine.stop))
        return Questions(
            pixels=self.shown(self.image[rows[mine]], positions[mine]),
            ids=ids[mine],
            mask=mask[mine],
            answer_ids=answer_ids[own],
            answer_mask=answer_mask[own],
            weight=self.weight[which[own]],
            owner=torch.from_numpy(owner[own] - mine.start),
        )


class StatementBatches(TaskBatches):
    """B statements a step.

    swap: show half of the pairs, drawn anew each time, in the other order, with `left` and `right` in the sentence
          exchanged, as the original does in training.
    max_length: sentences are cut to so many ids; the original cuts their words alone.
    """

    def __init__(
        self,
        table: StatementTable,
        tokenizer: TextTokenizer,
        feeding: Feeding,
        max_length: int = 512,
        swap: bool = True,
    ):
        super().__init__(table, tokenizer, feeding)
        self.table, self.swap = table, swap
        both = [*table.sentences, *map(other_sides, table.sentences)]
        self.sentences = Tokens(both, tokenizer, max_length, clean_statement)
        self.label = torch.from_numpy(table.labels.astype(np.int64))

    def batch(self, rows: np.ndarray, positions: np.ndarray, mine: slice) -> Statements:
        """As `TaskBatches.batch`."""
        left, right = self.table.first[rows], self.table.second[rows]
        turned = np.array([self.swap and rng(self.seed, "swap", int(p)).random() < 0.5 for p in positions])
        turned &= left != right  # one image has no other side, so its left stays left
        texts = self.sentences.id[rows + turned * len(self.table)]
        ids, mask = self.padded([self.sentences.row(i) for i in texts])
        first, second = np.where(turned, right, left)[mine], np.where(turned, left, right)[mine]
        at = positions[mine]
        return Statements(
            pixels=torch.stack((self.shown(first, at), self.shown(second, at, " second"))),
            ids=ids[mine],
            mask=mask[mine],
            label=self.label[rows[mine]],
        )


class DialogueBatches(TaskBatches):
    """B questions in dialogues a step, each with its answer and `wrong` other options, drawn anew each time.

    max_length: where a dialogue with an option is longer, its oldest parts go.
    """

    def __init__(
        self,
        table: DialogueTable,
        tokenizer: TextTokenizer,
        feeding: Feeding,
        max_length: int = 512,
        wrong: int = 1,
    ):
        super().__init__(table, tokenizer, feeding)
        self.table, self.max_length, self.wrong = table, max_length, wrong
        self.captions = Tokens(table.captions, tokenizer, max_length)

    def batch(self, rows: np.ndarray, positions: np.ndarray, mine: slice) -> Dialogues:
        """As `TaskBatches.batch`."""
        captions, caption_mask = self.padded([self.captions.row(i) for i in self.captions.id[rows]])
        chosen = [self._options(row, position) for row, position in zip(rows, positions, strict=True)]
        talks = [
            dialogue_ids(self.tokenizer, (*self.table.said[row], option), self.max_length)
            for row, options in zip(rows, chosen, strict=True)
            for option in options
        ]
        ids, mask = self.padded(talks)
        counts = [len(options) for options in chosen]
        owner = np.repeat(np.arange(len(rows)), counts)
        right = np.concatenate([np.arange(count) == 0 for count in counts])
        own = np.flatnonzero((owner >= mine.start) & (owner < mine.stop))
        return Dialogues(
            pixels=self.shown(self.table.image[rows[mine]], positions[mine]),
            caption_ids=captions[mine],
            caption_mask=caption_mask[mine],
            ids=ids[own],
            mask=mask[own],
            owner=torch.from_numpy(owner[own] - mine.start),
            label=torch.from_numpy(right[own].astype(np.int64)),
        )

    def _options(self, row: int, position: int) -> list[str]:
        """The answer, then wrong options; one that reads like the answer is none."""
        options = self.table.options[row]
        answer = options[self.table.right[row]]
        others = [option for option in options if option != answer]
        drawn = rng(self.seed, "options", int(position)).permutation(len(others))[: self.wrong]
        return [answer, *(others[i] for i in drawn)]
