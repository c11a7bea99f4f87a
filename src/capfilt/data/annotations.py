"""What people wrote about pictures, one frozen record for each task, whatever file it came from.

Texts stand as they were written: metrics want them so, and `inputs.texts` cleans them where a model reads them. Paths
are under the image root that the reader was given; nothing is opened. Readers are in `annotated`.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from capfilt.inputs.texts import clean_caption

Id = int | str

STATED_WORDS = 40  # of a statement that the original keeps
_OTHER_SIDE = {"left": "right", "right": "left"}


@dataclass(frozen=True)
class Captioned:
    """An image and its captions; none where they are kept back. domain: NoCaps' `in-domain` and its like."""

    image: str
    captions: tuple[str, ...]
    image_id: Id
    domain: str = ""


@dataclass(frozen=True)
class Asked:
    """A question about an image, or about a clip (then `image` and `image_id` are the clip's).

    answers:     distinct human answers in the order of their first mention; empty where they are kept back.
    weights:     for each of them how much it counts in training, in (0, 1].
    raw_answers: every human answer, ten in VQAv2: what the VQA metric counts.
    """

    image: str
    question: str
    answers: tuple[str, ...]
    weights: tuple[float, ...]
    raw_answers: tuple[str, ...]
    question_id: Id
    image_id: Id = ""
    answer_type: str = ""
    question_type: str = ""


@dataclass(frozen=True)
class Stated:
    """A sentence that is true or false (None: kept back) of a pair of images, or of one (second is None).

    group: equal where the same sentence is judged on other images; consistency asks for a whole group to be right.
    """

    first: str
    second: str | None
    sentence: str
    label: bool | None
    id: str
    group: str


@dataclass(frozen=True)
class Round:
    """One turn of a dialog: the question, the human answer, the options to rank and which of them is that answer.

    answer, right: None where kept back. relevance: share of people, in [0, 1], who found each option fitting.
    """

    question: str
    answer: str | None
    options: tuple[str, ...]
    right: int | None
    relevance: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Dialog:
    """A captioned image and the rounds of questions about it."""

    image: str
    caption: str
    rounds: tuple[Round, ...]
    image_id: Id

    def history(self, turn: int) -> tuple[tuple[str, str], ...]:
        """(question, answer) of every round before `turn`, counted from 0."""
        return tuple((r.question, r.answer) for r in self.rounds[:turn] if r.answer is not None)


@dataclass(frozen=True)
class Filmed:
    """A clip (a video file, or a folder of its frames) and its captions."""

    video: str
    captions: tuple[str, ...]
    video_id: Id


def weighed(raw_answers: Sequence[str]) -> tuple[tuple[str, ...], tuple[float, ...]]:
    """Distinct answers and the share of people who gave each, as BLIP weighs VQA answers.

    >>> weighed(["cup", "mug", "cup", "cup"])
    (('cup', 'mug'), (0.75, 0.25))
    """
    counts = Counter(raw_answers)
    return tuple(counts), tuple(count / len(raw_answers) for count in counts.values())


def swapped(stated: Stated) -> Stated:
    """The same statement with its images in the other order, cleaned, its words `left` and `right` exchanged.

    Only these very words change: `left-hand` and `right?` stay, as in the original, which draws this with
    probability 1/2 in every split. A statement about one image comes back as it is.
    """
    if stated.second is None:
        return stated
    return replace(stated, first=stated.second, second=stated.first, sentence=other_sides(stated.sentence))


def clean_statement(sentence: str, max_words: int = STATED_WORDS) -> str:
    """`clean_caption` that keeps as many words as the original does of a statement."""
    return clean_caption(sentence, max_words)


def other_sides(sentence: str) -> str:
    """The sentence, cleaned, with its words `left` and `right` exchanged.

    >>> other_sides("The left dog is right of it.")
    'the right dog is left of it'
    """
    return " ".join(_OTHER_SIDE.get(word, word) for word in clean_statement(sentence).split(" "))


def texts_of(records: Sequence[Captioned | Filmed]) -> tuple[list[str], np.ndarray]:
    """Every caption in order, and for each the index of its record: (T,) int64, what `evaluate.retrieval` wants."""
    owners = [index for index, record in enumerate(records) for _ in record.captions]
    return [caption for record in records for caption in record.captions], np.array(owners, np.int64)
