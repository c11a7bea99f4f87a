"""Amounts: what they are called and which counts they allow, exactly and loosely read."""

import re

import pytest

from capfilt.data.nlvr.words import NUMBERS, Say, Statement, colours
from capfilt.data.nlvr.world import Item, Scene
from capfilt.runtime import rng

RULES = {  # opening → which counts k of n are so: exactly read, loosely read
    r"(?:exactly|only) (\w+)": (lambda k, n: k == n, lambda k, n: k == n),
    r"(?:at least|atleast) (\w+)": (lambda k, n: k >= n, lambda k, n: k >= n),
    r"(?:at most|not more than) (\w+)": (lambda k, n: 1 <= k <= n, lambda k, n: 1 <= k <= n),
    r"more than (\w+)": (lambda k, n: k > n, lambda k, n: k > n),
    r"(?:less|fewer) than (\w+)": (lambda k, n: 1 <= k < n, lambda k, n: 1 <= k < n),
    r"no": (lambda k, n: k == 0, lambda k, n: k == 0),
    r"a": (lambda k, n: k >= 1, lambda k, n: k >= 1),
    r"(\w+)": (lambda k, n: k == n, lambda k, n: k >= n),
}


def test_amounts_mean_what_they_say():
    say, met = Say(rng("amounts")), set()
    for _ in range(2000):
        amount = say.amount(4)
        pattern, found = next((p, f) for p in RULES if (f := re.fullmatch(p, amount.text)))
        met.add(pattern)
        word = found[1] if found.re.groups else "one"
        n = int(word) if word.isdigit() else NUMBERS.index(word)
        for k in range(7):
            assert amount.test(k, True) == RULES[pattern][0](k, n), (amount.text, k)
            assert amount.test(k, False) == RULES[pattern][1](k, n), (amount.text, k)
    assert met == set(RULES)


@pytest.mark.parametrize(
    ("text", "plural"), [("a", False), ("two", True), ("exactly one", False), ("at least 3", True)]
)
def test_verb_and_noun_follow_the_amount(text, plural):
    say = Say(rng("grammar"))
    amount = next(a for a in (say.amount(4) for _ in range(5000)) if a.text == text)
    assert say.there(amount, say.plural("grey box", amount)) == (
        f"there are {text} grey boxes" if plural else f"there is {text} grey box"
    )


def test_a_statement_has_a_truth_where_both_readings_agree():
    box = (Item("square", "blue", 20, 40, 80), Item("square", "black", 20, 40, 59))
    scene = Scene((box,) * 3, True)
    assert colours(box) == ["blue", "black"]
    assert Statement("", lambda s, exact: True).truth(scene) is True
    assert Statement("", lambda s, exact: not s.towers).truth(scene) is False
    assert Statement("", lambda s, exact: exact).truth(scene) is None
