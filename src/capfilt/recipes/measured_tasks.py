"""The tasks of BLIP as `capfilt eval` measures them: what is read, what a model is asked, and in which form it is told.

A `Task` holds the settings that only it has, with the original's as defaults. What the paper reached with the published
weights, none of which are at hand here, stands with each (BLIP, arXiv 2201.12086, tables 5 to 11).
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from capfilt.blocks.med import Role
from capfilt.data.annotated.checked import read_text
from capfilt.data.annotations import Asked, Captioned, Dialog, Filmed, Stated
from capfilt.data.pictures import Album, open_album, open_clips
from capfilt.data.recognise import (
    read_captions,
    read_dialogs,
    read_film_questions,
    read_films,
    read_questions,
    read_statements,
)
from capfilt.errors import DataError
from capfilt.evaluate.tasks import (
    Measured,
    measure_answers,
    measure_captions,
    measure_dialogs,
    measure_retrieval,
    measure_statements,
    measure_videos,
)
from capfilt.inputs.tokenizer import TextTokenizer
from capfilt.models.blip import Blip
from capfilt.models.blip_nlvr import BlipNlvr
from capfilt.models.blip_visdial import BlipVisdial
from capfilt.models.blip_vqa import BlipVqa
from capfilt.predict.answerer import Answerer, K
from capfilt.predict.decode import BEAM, NOCAPS, Decoding
from capfilt.predict.faithful import Faithful
from capfilt.predict.predictor import Predictor
from capfilt.predict.reasoner import Dialogist, Reasoner
from capfilt.weights.store import Model


@dataclass(frozen=True)
class Files:
    """data: annotation files. images: folder of the images or clips that they name; None: their own."""

    data: tuple[str, ...]
    images: str | None = None

    @property
    def root(self) -> str:
        """The folder of the images."""
        return self.images or str(Path(self.data[0]).parent)


@dataclass(frozen=True)
class Task(ABC):
    """What is read, and what a model is asked.

    model, roles: what it needs.
    switches:     those of `Faithful` that it heeds.
    file:         predictions, in the form in which the task's server or script takes them.
    """

    model: ClassVar[type[Model]] = Blip
    roles: ClassVar[tuple[Role, ...]] = ()
    switches: ClassVar[tuple[str, ...]] = ()
    file: ClassVar[str]

    @abstractmethod
    def read(self, files: Files, split: str) -> Sequence[Any]:
        """Annotations. split: which part of a file that holds several."""

    def usual(self, rows: Sequence[Any]) -> "Task":
        """The settings that the original has for such rows."""
        return self

    def images(self, row: Any) -> tuple[str, ...]:
        """What a row is about."""
        return (row.image,)

    @abstractmethod
    def known(self, row: Any) -> bool:
        """Whether its truth is told."""

    def album(self, names: Iterable[str], out: Path, px: int) -> Album:
        """All images, or clips."""
        return open_album(names, out, px)

    @abstractmethod
    def measure(
        self, model: Any, words: TextTokenizer, rows: Sequence[Any], album: Album, faithful: Faithful
    ) -> Measured:
        """What the model says, and what that comes to."""


@dataclass(frozen=True)
class Captioning(Task):
    """COCO (CIDEr 129.7 of BLIP with 14M images, 136.7 of ViT-L) and NoCaps (overall CIDEr 105.1 and 113.2).

    decoding: for rows with a domain, which only NoCaps has, `NOCAPS`: a repetition penalty of 1.1.
    extras:   `meteor`, `spice`.
    """

    decoding: Decoding = BEAM
    extras: tuple[str, ...] = ()
    roles = ("speak",)
    file = "captions.json"

    def read(self, files: Files, split: str) -> list[Captioned]:
        return read_captions(files.data, files.root, split)

    def usual(self, rows: Sequence[Captioned]) -> "Captioning":
        return Captioning(NOCAPS) if any(one.domain for one in rows) else self

    def known(self, row: Captioned) -> bool:
        return bool(row.captions)

    def measure(
        self, model: Any, words: TextTokenizer, rows: Sequence[Captioned], album: Album, faithful: Faithful
    ) -> Measured:
        predictor = Predictor(model, words)
        return measure_captions(predictor, rows, album, self.decoding, self.extras)


@dataclass(frozen=True)
class Retrieval(Task):
    """COCO (TR@1 80.6, IR@1 63.1 of BLIP with 14M images) and Flickr30k.

    k:   candidates a query; the original has 128 for Flickr30k.
    itc: what the cosine counts beside the matching logit, 1 in BLIP; None: one over the model's temperature.
    """

    k: int = 256
    itc: float | None = 1.0
    roles = ("read",)
    switches = ("match_cls",)
    file = "ranks.json"

    def read(self, files: Files, split: str) -> list[Captioned]:
        return read_captions(files.data, files.root, split)

    def known(self, row: Captioned) -> bool:
        return bool(row.captions)

    def measure(
        self, model: Any, words: TextTokenizer, rows: Sequence[Captioned], album: Album, faithful: Faithful
    ) -> Measured:
        return measure_retrieval(Predictor(model, words, faithful=faithful), rows, album, self.k, self.itc)


@dataclass(frozen=True)
class Answering(Task):
    """VQAv2 (77.5 on test-dev of BLIP with 14M images).

    candidates: file with the answers to choose from, a JSON list or one a line, `k` of them judged in full; without
                one, answers are generated.
    """

    candidates: str | None = None
    k: int = K
    model = BlipVqa
    switches = ("question_cls", "question_padding", "rank_smoothing", "rank_torch110")
    file = "answers.json"

    def read(self, files: Files, split: str) -> list[Asked]:
        return read_questions(files.data, files.root)

    def known(self, row: Asked) -> bool:
        return bool(row.raw_answers)

    def measure(
        self, model: Any, words: TextTokenizer, rows: Sequence[Asked], album: Album, faithful: Faithful
    ) -> Measured:
        candidates = None if self.candidates is None else read_candidates(self.candidates)
        answerer = Answerer(model, words, faithful=faithful)
        return measure_answers(answerer, rows, album, candidates, self.k)


@dataclass(frozen=True)
class Judging(Task):
    """NLVR2 (82.7 on dev of BLIP with 14M images, whose evaluation has `random_swap`)."""

    model = BlipNlvr
    switches = ("random_swap",)
    file = "verdicts.csv"

    def read(self, files: Files, split: str) -> list[Stated]:
        return read_statements(files.data, files.root, "dev" if split == "val" else split)

    def images(self, row: Stated) -> tuple[str, ...]:
        return (row.first,) if row.second is None else (row.first, row.second)

    def known(self, row: Stated) -> bool:
        return row.label is not None

    def measure(
        self, model: Any, words: TextTokenizer, rows: Sequence[Stated], album: Album, faithful: Faithful
    ) -> Measured:
        return measure_statements(Reasoner(model, words, faithful=faithful), rows, album)


@dataclass(frozen=True)
class Talking(Task):
    """VisDial (MRR 69.4 on val of BLIP; its code and weights were not published)."""

    model = BlipVisdial
    file = "rankings.json"

    def read(self, files: Files, split: str) -> list[Dialog]:
        return read_dialogs(files.data, files.root)

    def known(self, row: Dialog) -> bool:
        return any(one.right is not None for one in row.rounds)

    def measure(
        self, model: Any, words: TextTokenizer, rows: Sequence[Dialog], album: Album, faithful: Faithful
    ) -> Measured:
        return measure_dialogs(Dialogist(model, words), rows, album)


@dataclass(frozen=True)
class Filming(Task):
    """MSRVTT's 1k test, with weights that were tuned for COCO retrieval (R@1 43.3, median rank 2).

    itc: as `Retrieval`. frames: of each clip.
    suffix: of clips that files name without one; "" where each is a folder of frames.
    """

    k: int = 128
    itc: float | None = 1.0
    frames: int = 8
    suffix: str = ".mp4"
    roles = ("read",)
    switches = ("match_cls",)
    file = "ranks.json"

    def read(self, files: Files, split: str) -> list[Filmed]:
        return read_films(files.data, files.root, split, self.suffix)

    def images(self, row: Filmed) -> tuple[str, ...]:
        return (row.video,)

    def known(self, row: Filmed) -> bool:
        return bool(row.captions)

    def album(self, names: Iterable[str], out: Path, px: int) -> Album:
        return open_clips(names, out, px, self.frames)

    def measure(
        self, model: Any, words: TextTokenizer, rows: Sequence[Filmed], album: Album, faithful: Faithful
    ) -> Measured:
        batch = max(1, 256 // self.frames)  # a text looks at so many times the tokens of an image
        return measure_videos(Predictor(model, words, batch, faithful=faithful), rows, album, self.k, self.itc)


@dataclass(frozen=True)
class FilmAnswering(Answering):
    """Questions about clips with weights tuned for VQAv2 (19.2 on MSRVTT-QA, 35.2 on MSVD-QA); as `Filming`."""

    frames: int = 16
    suffix: str = ".mp4"

    def read(self, files: Files, split: str) -> list[Asked]:
        return read_film_questions(files.data, files.root, self.suffix)

    def album(self, names: Iterable[str], out: Path, px: int) -> Album:
        return open_clips(names, out, px, self.frames)


TASKS: dict[str, type[Task]] = {
    "caption": Captioning,
    "retrieval": Retrieval,
    "vqa": Answering,
    "nlvr2": Judging,
    "visdial": Talking,
    "video-retrieval": Filming,
    "video-qa": FilmAnswering,
}


def read_candidates(path: str) -> list[str]:
    """Answers to choose from: a JSON list of texts, or one a line. Raises DataError for neither."""
    text = read_text(path)
    if not text.lstrip().startswith("["):
        return [line.strip() for line in text.splitlines() if line.strip()]
    try:
        found = json.loads(text)
    except ValueError as error:
        raise DataError(f"{path}: not JSON ({error})") from None
    if not all(isinstance(answer, str) for answer in found):
        raise DataError(f"{path}: a list of answers was expected, it has other things than texts in it")
    return found
