"""Traits of towers against towers judged by hand, spelled from the base up: y yellow, k black, b blue."""

import pytest

from capfilt.data.nlvr.traits import between, counted, height, over, run, tower_trait
from capfilt.data.nlvr.words import Say, Trait
from capfilt.data.nlvr.world import Box, Item
from capfilt.runtime import rng

NAMES = {"y": "yellow", "k": "black", "b": "blue"}


def tower(letters: str) -> Box:
    return tuple(Item("square", NAMES[c], 20, 40, 80 - 21 * i) for i, c in enumerate(letters))


def told(make, text: str) -> Trait:
    say = Say(rng("traits"))
    return next(trait for trait in (make(say) for _ in range(30_000)) if trait.text == text)


@pytest.mark.parametrize(
    ("make", "text", "so", "not_so", "in_doubt"),
    [
        (height, "exactly three blocks", ["yyk"], ["yy", "ykyb"], []),
        (height, "at least two blocks", ["yk", "ykb"], ["k"], []),
        (counted, "two blue blocks", ["bb", "bkb"], ["b", "kk"], ["bbb"]),
        (over, "a black block on a blue block", ["bk", "ybk"], ["kb", "byk"], []),
        (over, "a black block above a blue block", ["bk"], ["kb", "k"], ["byk"]),
        (over, "a blue block below a black block", ["bk"], ["kb"], ["byk"]),
        (between, "a black block between two yellow blocks", ["yky", "byky"], ["ykky", "yk"], []),
        (run, "2 black blocks stacked together", ["kk", "bkky"], ["kbk", "k"], ["kkk"]),
        (tower_trait, "only blue blocks", ["b", "bb"], ["bk"], []),
        (tower_trait, "a black block in the middle", ["yky", "ykky"], ["ky", "kyk"], ["ykby"]),
        (tower_trait, "blocks of the same color", ["bb"], ["bk", "b"], []),
        (tower_trait, "a blue block second from the base", ["yb", "bbk"], ["by", "b"], []),
        (tower_trait, "yellow base and black top", ["yk", "ybk"], ["ky", "y"], []),
        (tower_trait, "no yellow block", ["bk"], ["y", "ky"], []),
    ],
)
def test_traits_by_hand(make, text, so, not_so, in_doubt):
    trait = told(make, text)
    for letters in (*so, *not_so, *in_doubt):
        exact, loose = (trait.test(tower(letters), reading) for reading in (True, False))
        wanted = (False, True) if letters in in_doubt else (letters in so,) * 2
        assert (exact, loose) == wanted, (text, letters)
