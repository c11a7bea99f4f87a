"""VQA accuracy: each rule of the official normalisation, and numbers by hand."""

import pytest

from capfilt.data.annotations import Asked
from capfilt.errors import DataError
from capfilt.evaluate.answers import normalize, score_answers, vqa_accuracy

RULES = {
    "Yes": "yes",
    "The dog": "dog",
    "a an the": "",
    "two": "2",
    "none": "0",
    "Ten dogs": "10 dogs",
    "eleven": "eleven",
    "dont": "don't",
    "couldntve": "couldntve",  # two apostrophes short: not in the official table
    "couldnt've": "couldn't've",
    "couldn'tve": "couldn't've",
    "yall'd've": "y'all'd've",
    "ow's'at": "'ow's'at",
    "somebody'd": "somebodyd",
    "shes": "shes",
    "Ive": "ive",
    "t-shirt": "t shirt",
    "t- shirt": "t shirt",
    "yes,no": "yes no",
    "yes, no": "yes no",
    "red-white, blue": "red white blue",  # the comma touches a space, the hyphen does not
    "a/b": "b",  # the slash becomes a space, then the article goes
    "1,000": "1000",
    "1,000 a/b": "1000 ab",
    "stop.": "stop",
    "2.5": "2.5",
    ".5 cm": ".5 cm",
    "U.S.": "us",
    "St. 5": "st 5",
    "3:30": "3:30",
    "dog's": "dog's",
    "what?!": "what",
    "new\nyork\t": "new york",
    "  big   dog ": "big dog",
    "": "",
    "." * 40: "." * 8,  # the official code takes away 32 at most
}


@pytest.mark.parametrize(("raw", "clean"), RULES.items())
def test_normalisation(raw, clean):
    assert normalize(raw) == clean


def test_accuracy_leaves_each_person_out():
    humans = ["cup"] * 3 + ["mug"] * 7
    # One of the three left out: 2 / 3. One of the seven left out: 3 / 3.
    assert vqa_accuracy("cup", humans) == pytest.approx((3 * 2 / 3 + 7 * 1) / 10)
    assert vqa_accuracy("mug", humans) == 1
    assert vqa_accuracy("glass", humans) == 0
    assert vqa_accuracy("cup", ["cup"] + ["mug"] * 9) == pytest.approx(9 * (1 / 3) / 10)
    assert vqa_accuracy("cup", ["cup"] * 2 + ["mug"] * 8) == pytest.approx((2 * 1 / 3 + 8 * 2 / 3) / 10)


def test_texts_are_normalised_only_where_people_differ():
    assert vqa_accuracy("Two dogs.", ["2 dogs"] * 9 + ["the 2 dogs"]) == 1
    assert vqa_accuracy("2", ["two"] * 10) == 0  # so does the official code
    assert vqa_accuracy(" two\n", ["two\t"] * 10) == 1


def test_one_human_answer_is_compared():
    assert vqa_accuracy("couch", ["couch"]) == 1
    assert vqa_accuracy("a couch", ["couch"]) == 0
    with pytest.raises(DataError, match="without human answers"):
        vqa_accuracy("couch", [])


def asked(number, humans, answer_type="", question_type=""):
    return Asked("x.jpg", "q", (), (), tuple(humans), number, 1, answer_type, question_type)


def test_scores_by_type():
    questions = [
        asked(1, ["yes"] * 10, "yes/no", "is the"),
        asked(2, ["2"] * 8 + ["3"] * 2, "number", "how many"),
        asked(3, ["no"] * 10, "yes/no", "is the"),
        asked(4, ["red"] * 10),
    ]
    found = score_answers(questions, {1: "yes", 2: "three", 3: "yes", 4: "red"})
    third = (2 * 1 / 3 + 8 * 2 / 3) / 10
    assert found.each == pytest.approx([1, third, 0, 1])
    assert found.overall == pytest.approx((2 + third) / 4)
    assert found.by_answer_type == pytest.approx({"number": third, "yes/no": 0.5})
    assert found.by_question_type == pytest.approx({"how many": third, "is the": 0.5})
    assert found.summary() == pytest.approx({"overall": found.overall, "number": third, "yes/no": 0.5})


def test_every_question_wants_one_answer():
    questions = [asked(1, ["yes"] * 10), asked(2, ["no"] * 10)]
    with pytest.raises(DataError, match="2 questions, 1 of them without an answer, 0 answers to other"):
        score_answers(questions, {1: "yes"})
    with pytest.raises(DataError, match=r"0 of them without an answer, 1 answers to other questions \(such as 7\)"):
        score_answers(questions, {1: "yes", 2: "no", 7: "x"})
    with pytest.raises(DataError, match="no question"):
        score_answers([], {})
