"""VQA accuracy as the official evaluation counts it.

Source: VQA (Antol et al., arXiv 1505.00468) and the evaluation code of VQA v2, whose treatment of texts is followed to
the letter where it decides a number: an answer is worth min(1, others who gave it / 3), averaged over leaving each
person out in turn. Values are shares in [0, 1]; papers print 100 times that.
"""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from capfilt.data.annotations import Asked, Id
from capfilt.errors import DataError

AGREEING = 3  # people whose answer makes it fully right

# Contractions that regain their apostrophe. Written without any one of their apostrophes they are still known, and
# forms that the official table lacks (she'd, it's, we'd) stay as they are written.
_CONTRACTIONS = (
    "ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd "
    "he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've "
    "needn't not've o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've "
    "somebody'll somebody's someone'd someone'd've someone'll someone's something'd something'd've something'll "
    "that's there'd there'd've there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've "
    "weren't what'll what're what's what've when's where'd where's where've who'd who'd've who'll who's who've "
    "why'll why're why's won't would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're "
    "you've"
)
_RESTORED = {
    word[:at] + word[at + 1 :]: word
    for word in _CONTRACTIONS.split()
    for at, letter in enumerate(word)
    if letter == "'"
} | {"somebody'd": "somebodyd"}  # the official table has this one the wrong way round
_DIGITS = "zero one two three four five six seven eight nine ten"
_NUMBERS = {word: str(number) for number, word in enumerate(_DIGITS.split())} | {"none": "0"}
_ARTICLES = frozenset(("a", "an", "the"))
_MARKS = ';/[]"{}()=+\\_-><@`,?!'  # apostrophes and colons stay
_COMMA_IN_NUMBER = re.compile(r"\d,\d")
_POINT = re.compile(r"\.(?!\d)")  # a full stop, but not the point of 2.5 or of .5
_MOST_POINTS = 32  # the official code hands re.UNICODE, which is 32, to the place of a count


def normalize(answer: str) -> str:
    """An answer as the official evaluation compares it: marks, case, number words, articles and contractions undone.

    A mark that touches a space anywhere in the answer vanishes, and so does every mark where a number has a comma in
    it; other marks become a space.

    >>> normalize("Two dogs, a cat"), normalize("dont know!"), normalize("1,000"), normalize("t-shirt")
    ('2 dogs cat', "don't know", '1000', 't shirt')
    """
    text = _flat(answer)
    glued = _COMMA_IN_NUMBER.search(text) is not None
    bare = text
    for mark in _MARKS:
        gone = glued or f"{mark} " in text or f" {mark}" in text
        bare = bare.replace(mark, "" if gone else " ")
    words = (_NUMBERS.get(word, word) for word in _POINT.sub("", bare, count=_MOST_POINTS).lower().split())
    return " ".join(_RESTORED.get(word, word) for word in words if word not in _ARTICLES)


def vqa_accuracy(answer: str, humans: Sequence[str]) -> float:
    """How right an answer is, in [0, 1].

    Texts are normalised only where the human answers differ, as the official code does. With a single human answer
    there is nobody to leave out: then the same text counts 1, as video question answering counts it.

    Raises:
        DataError: no human answer.
    """
    if not humans:
        raise DataError(
            "VQA accuracy: a question without human answers; those of a test split are known to its server."
        )
    said, known = _flat(answer), [_flat(human) for human in humans]
    if len(known) == 1:
        return float(said == known[0])
    if len(set(known)) > 1:
        said, known = normalize(said), [normalize(human) for human in known]
    agreeing = known.count(said)
    left_out = [agreeing - (human == said) for human in known]
    return sum(min(1.0, others / AGREEING) for others in left_out) / len(known)


@dataclass(frozen=True)
class VqaScores:
    """Mean accuracy over all questions, over those of each answer type (`yes/no`, `number`, `other`) and question type.

    each: (Q,) float64, one accuracy a question in the order asked: what `intervals` wants.
    """

    overall: float
    by_answer_type: Mapping[str, float]
    by_question_type: Mapping[str, float]
    each: np.ndarray = field(repr=False)

    def summary(self) -> dict[str, float]:
        """`overall` and each answer type by name."""
        return {"overall": self.overall, **self.by_answer_type}


def score_answers(asked: Sequence[Asked], answers: Mapping[Id, str]) -> VqaScores:
    """Scores one answer for each question, found by its `question_id`. Questions without a type count overall only.

    Raises:
        DataError: no question, one without an answer, an answer to none of the questions, or as `vqa_accuracy`.
    """
    if not asked:
        raise DataError("VQA accuracy: no question to score.")
    known = {question.question_id for question in asked}
    if known != answers.keys():
        lost, foreign = known - answers.keys(), answers.keys() - known
        some = next(iter(lost or foreign))
        raise DataError(
            f"VQA accuracy: {len(known)} questions, {len(lost)} of them without an answer, {len(foreign)} answers "
            f"to other questions (such as {some!r}). Answer every question of one split."
        )
    each = np.array([vqa_accuracy(answers[q.question_id], q.raw_answers) for q in asked])
    return VqaScores(
        overall=float(each.mean()),
        by_answer_type=_means([q.answer_type for q in asked], each),
        by_question_type=_means([q.question_type for q in asked], each),
        each=each,
    )


def _flat(answer: str) -> str:
    return answer.replace("\n", " ").replace("\t", " ").strip()


def _means(kinds: Sequence[str], values: np.ndarray) -> dict[str, float]:
    rows: dict[str, list[float]] = defaultdict(list)
    for kind, value in zip(kinds, values.tolist(), strict=True):
        if kind:
            rows[kind].append(value)
    return {kind: sum(found) / len(found) for kind, found in sorted(rows.items())}
