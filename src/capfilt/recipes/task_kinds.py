"""What one task of BLIP does otherwise than the others: how its rows are read, put into batches, and measured.

A kind holds the settings that only its task has; what all have is a TaskConfig. The run itself is in `tasks`.

    read     a part of the data, its pictures decoded into a folder
    texts    every text that is learned from, for a vocabulary of its own
    batches  what `train.loop.fit` takes
    measure  name → number of a trained model; `learned`: what it was trained on, `length`: ids that texts are cut to
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from capfilt.data.annotations import Asked, Dialog, Stated
from capfilt.data.collection import Collection, from_source
from capfilt.data.pictures import Album, open_album
from capfilt.data.recognise import read_captions, read_dialogs, read_questions, read_statements
from capfilt.data.table import Batches, Chosen, Feeding
from capfilt.data.task_batches import (
    DialogueBatches,
    DialogueTable,
    QuestionBatches,
    QuestionTable,
    StatementBatches,
    StatementTable,
)
from capfilt.errors import ConfigError
from capfilt.evaluate.model import evaluate
from capfilt.evaluate.tasks import Numbers, measure_answers, measure_dialogs, measure_statements
from capfilt.inputs.augment import AugmentConfig
from capfilt.inputs.tokenizer import TextTokenizer
from capfilt.models.blip import BlipConfig, Objective
from capfilt.models.blip_nlvr import Reasoning
from capfilt.models.blip_visdial import Continuing
from capfilt.models.blip_vqa import Answering
from capfilt.pair import Row
from capfilt.predict.answerer import Answerer, K
from capfilt.predict.decode import BEAM, Decoding
from capfilt.predict.predictor import Predictor
from capfilt.predict.reasoner import Dialogist, Reasoner
from capfilt.runtime import derive
from capfilt.train.loop import TrainConfig
from capfilt.weights.sizes import Config

R = TypeVar("R")


@dataclass(frozen=True)
class Part:
    """One part of a run's data, training or validation.

    paths:  annotation files, or one collection of pairs.
    images: folder under which annotations name their images; None: the folder of the annotations.
    split:  `train` or `val`, of a file that holds both.
    out:    folder for what is decoded.
    px:     side of the pictures kept there.
    """

    paths: tuple[str, ...]
    images: str | None
    split: str
    out: Path
    px: int

    @property
    def root(self) -> str:
        """The folder of the images."""
        return self.images or str(Path(self.paths[0]).parent)


@dataclass(frozen=True)
class Records(Generic[R]):
    """Annotations and the pictures they name."""

    rows: list[R]
    album: Album

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def failed(self) -> tuple[Row, ...]:
        """Images that could not be read."""
        return tuple(Row(name, "failed", why) for name, why in self.album.failed.items())


@dataclass(frozen=True)
class Pairs:
    """Images and their captions: captioning, retrieval.

    k, itc:   candidates a query that are re-ranked where the model is measured by retrieval, and what the cosine counts
              there: 1 in BLIP; None: one over the model's temperature.
    decoding: how it is made to speak where it is measured by its captions.
    """

    k: int = 256
    itc: float | None = 1.0
    decoding: Decoding = BEAM

    def read(self, part: Part) -> Collection:
        """Annotated images where their folder is told; else any collection that `bootstrap` reads."""
        if part.images is None:
            if len(part.paths) > 1:
                raise ConfigError(f"{len(part.paths)} collections; give one, or annotation files with their --images")
            return from_source(part.paths[0], part.out, part.px)
        found = _records(read_captions(part.paths, part.images, part.split), lambda one: (one.image,), part)
        rows = [one for one in found.rows if one.image in found.album.place and one.captions]
        at = np.array([found.album.place[one.image] for one in rows], np.int64)
        keys, texts = tuple(one.image for one in rows), tuple(one.captions for one in rows)
        return Collection(keys, Chosen(found.album.pictures, at), texts, texts, failed=found.failed)

    def texts(self, data: Collection) -> Iterable[str]:
        """Every text that is learned from."""
        return chain(*data.texts)

    def batches(self, data: Collection, tokenizer: TextTokenizer, config: "TaskConfig") -> Batches:
        """A caption a row, behind the model's prompt."""
        assert isinstance(config.model, BlipConfig)
        return Batches(data.table(), tokenizer, config.feeding, config.longest, prompt=config.model.prompt)

    def measure(
        self, model: Any, tokenizer: TextTokenizer, val: Collection, learned: Collection, length: int
    ) -> Numbers:
        """What the model's roles allow: recall both ways, re-ranked and by cosine alone; scores of its captions."""
        predictor = Predictor(model, tokenizer, max_length=length)
        return evaluate(predictor, val, self.decoding, self.k, self.itc).summary


@dataclass(frozen=True)
class Questions:
    """Visual questions.

    answers: how many of the commonest training answers are candidates when it is measured, 3,128 in BLIP; 0: answers
             are generated.
    k:       candidates judged in full.
    """

    answers: int = 3128
    k: int = K

    def read(self, part: Part) -> Records[Asked]:
        """Questions with their answers."""
        return _records(read_questions(part.paths, part.root), lambda asked: (asked.image,), part)

    def texts(self, data: Records[Asked]) -> Iterable[str]:
        """Every text that is learned from."""
        return chain.from_iterable((asked.question, *asked.answers) for asked in data.rows)

    def batches(self, data: Records[Asked], tokenizer: TextTokenizer, config: "TaskConfig") -> QuestionBatches:
        """A question a row, with all its answers."""
        table, positions = QuestionTable.of(data.rows, data.album), config.model.text.positions
        return QuestionBatches(table, tokenizer, config.feeding, config.longest, positions)

    def measure(
        self, model: Any, tokenizer: TextTokenizer, val: Records[Asked], learned: Records[Asked], length: int
    ) -> Numbers:
        """VQA accuracy."""
        said = Counter(answer for asked in learned.rows for answer in asked.answers if answer.strip())
        candidates = [answer for answer, _ in said.most_common(self.answers)] if self.answers else None
        answerer = Answerer(model, tokenizer, max_length=length)
        return measure_answers(answerer, val.rows, val.album, candidates, self.k).numbers


@dataclass(frozen=True)
class Statements:
    """Statements about two images. swap: see `data.task_batches.StatementBatches`."""

    swap: bool = True

    def read(self, part: Part) -> Records[Stated]:
        """Statements with their labels."""
        stated = read_statements(part.paths, part.root, "train" if part.split == "train" else "dev")
        return _records(stated, lambda one: (one.first, one.second or one.first), part)

    def texts(self, data: Records[Stated]) -> Iterable[str]:
        """Every text that is learned from."""
        return (stated.sentence for stated in data.rows)

    def batches(self, data: Records[Stated], tokenizer: TextTokenizer, config: "TaskConfig") -> StatementBatches:
        """A statement a row."""
        table = StatementTable.of(data.rows, data.album)
        return StatementBatches(table, tokenizer, config.feeding, config.longest, self.swap)

    def measure(
        self, model: Any, tokenizer: TextTokenizer, val: Records[Stated], learned: Records[Stated], length: int
    ) -> Numbers:
        """Accuracy and consistency."""
        return measure_statements(Reasoner(model, tokenizer), val.rows, val.album).numbers


@dataclass(frozen=True)
class Dialogues:
    """Visual dialogue. wrong: options beside the answer that a question brings to a step; the paper does not say."""

    wrong: int = 1

    def read(self, part: Part) -> Records[Dialog]:
        """Dialogs with their options."""
        return _records(read_dialogs(part.paths, part.root), lambda dialog: (dialog.image,), part)

    def texts(self, data: Records[Dialog]) -> Iterable[str]:
        """Every text that is learned from, options that never are the answer left out."""
        return chain.from_iterable(
            (dialog.caption, *(r.question for r in dialog.rounds), *(r.answer or "" for r in dialog.rounds))
            for dialog in data.rows
        )

    def batches(self, data: Records[Dialog], tokenizer: TextTokenizer, config: "TaskConfig") -> DialogueBatches:
        """A question a row, with what was said before it."""
        table = DialogueTable.of(data.rows, data.album)
        return DialogueBatches(table, tokenizer, config.feeding, config.longest, self.wrong)

    def measure(
        self, model: Any, tokenizer: TextTokenizer, val: Records[Dialog], learned: Records[Dialog], length: int
    ) -> Numbers:
        """Where the answer stands among its options."""
        return measure_dialogs(Dialogist(model, tokenizer), val.rows, val.album).numbers


Kind = Pairs | Questions | Statements | Dialogues


@dataclass(frozen=True)
class TaskConfig:
    """How one model is trained for one task.

    epochs:     passes over the training rows; None where train.steps says how long.
    max_length: texts are cut to so many ids; None: to the model's positions.
    store_px:   side at which training pictures are kept; None: the model's, or a seventh more where crops are cut.
    vocabulary: size of the WordPiece vocabulary learned from the training texts where training starts from nothing.
    """

    model: Config
    objective: Objective | Answering | Reasoning | Continuing
    kind: Kind
    train: TrainConfig
    epochs: float | None
    max_length: int | None = None
    augmentation: AugmentConfig | None = field(default_factory=AugmentConfig)
    store_px: int | None = None
    vocabulary: int = 4000

    @property
    def longest(self) -> int:
        """Ids of the longest text."""
        positions = self.model.text.positions
        return min(self.max_length or positions, positions)

    @property
    def kept_px(self) -> int:
        """Side at which training pictures are kept."""
        px = self.model.vit.px
        return self.store_px or (px if self.augmentation is None else px * 8 // 7)

    @property
    def feeding(self) -> Feeding:
        """What the batches of any kind are made by."""
        return Feeding(self.train.batch, derive(self.train.seed, "batches"), self.model.vit.px, self.augmentation)


def _records(rows: list[R], images: Callable[[R], Iterable[str]], part: Part) -> Records[R]:
    names = chain.from_iterable(map(images, rows))
    return Records(rows, open_album(names, part.out, part.px))
