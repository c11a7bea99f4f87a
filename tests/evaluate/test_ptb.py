"""Our treebank words against the tokenised texts of the COCO caption evaluation."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capfilt.evaluate.ptb import tokenize, words

LISTS = ("constant", "dropped", "human0", "repeated", "shuffled")


def gold(shared, name):
    return json.loads((shared / "data" / "metrics" / f"flickr8k-val300.{name}").read_text("utf-8"))


@pytest.mark.parametrize("name", LISTS)
def test_gold_hypotheses(shared, name):
    rows = gold(shared, f"hyp-{name}.json")
    assert {row["image_id"]: tokenize(row["caption"]) for row in rows} == gold(shared, f"hyp-{name}.ptb.json")


def test_gold_references(shared):
    found = {key: [tokenize(text) for text in texts] for key, texts in gold(shared, "refs.json").items()}
    assert found == gold(shared, "refs.ptb.json")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [  # each seen from the Java tokenizer
        ("A Dog.", "a dog"),
        ("a (man) [x] {y}", "a -lrb- man -rrb- -lsb- x -rsb- -lcb- y -rcb-"),
        ("don't can't won't it's he'll they're I'd", "do n't ca n't wo n't it 's he 'll they 're i 'd"),
        ("it’s a “test” – yes — no…", "it 's a test yes no"),
        ("U.S. flag, end of U.S.", "u.s. flag end of u.s."),
        ("Mr. Smith vs. Dr. No at 10 a.m.", "mr. smith vs. dr. no at 10 a.m."),
        ("lying in the sun.", "lying in the sun"),
        ("the Wash. coast, time to wash.", "the wash. coast time to wash"),
        ("No. 5 says no.", "no. 5 says no"),
        ("3.5 miles, 1,000 people at 10:30, 1/2 cup", "3.5 miles 1,000 people at 10:30 1/2 cup"),
        ("a 4-wheeler, 2nd 5-year-old in a t-shirt - a -- b", "a 4-wheeler 2nd 5-year-old in a t-shirt a b"),
        ("cannot gonna wanna gotta lemme", "can not gon na wan na got ta lem me"),
        ("a slip 'n' slide at five o'clock in the '90s", "a slip 'n' slide at five o'clock in the '90s"),
        ("dogs' house, man 's face, men's", "dogs house man 's face men 's"),
        ("50% off $20 #1 @home a & b", "50 % off $ 20 # 1 @home a & b"),
        ("what?! yes!", "what ?! yes"),
        ("see http://x.com/a?b=c.", "see http://x.com/a?b=c"),
        ("so nice :)", "so nice :-rrb-"),
        ("foo_bar.jpg", "foo_bar jpg"),
        ("£5 café", "# 5 café"),
    ],
)
def test_what_the_java_program_does(text, wanted):
    assert tokenize(text) == wanted


@pytest.mark.parametrize("text", ["", "   ", ". . .", "\n\t", "!", "\u200b"])
def test_nothing_left(text):
    assert words(text) == []


@given(st.text())
def test_any_text_gives_words_without_spaces(text):
    for word in words(text):
        assert word
        assert word.startswith("<") or word.split() == [word]  # mark-up alone may hold spaces


@given(st.lists(st.sampled_from(["a", "dog", "two", "red", "t-shirt", "snow", "o'clock", "3", "'s", "n't"])))
def test_treebank_words_stay_as_they_are(found):
    assert words(" ".join(found)) == found


def test_a_long_run_takes_no_time():
    for sign in ("a", ".", "_", "1.", "a-", "'", "<a"):
        words(sign * 20_000)
