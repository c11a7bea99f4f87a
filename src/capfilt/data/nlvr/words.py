"""What statements about drawn NLVR scenes are made of: amounts, colours, and parts that know when they are true.

People mean "two towers" as exactly two or as two at least. A part is therefore tested under both readings, exact and
loose, and a statement has a truth only where both agree.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from capfilt.data.nlvr.world import COLOURS, Box, Scene

NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight")
BoxTest = Callable[[Box, bool], bool]  # (what is judged, whether to read exactly)


class Statement(NamedTuple):
    """A sentence and the scenes in which it holds, under an exact (True) or a loose reading."""

    text: str
    test: Callable[[Scene, bool], bool]

    def truth(self, scene: Scene) -> bool | None:
        """Whether the sentence is true of the scene; None where that depends on the reading."""
        exact = self.test(scene, True)
        return exact if exact == self.test(scene, False) else None


class Trait(NamedTuple):
    """What stands behind "with" ("two blue blocks") and which boxes are so."""

    text: str
    test: BoxTest


class Amount(NamedTuple):
    """How many ("at least two"), which counts are so, and whether a plural follows."""

    text: str
    test: Callable[[int, bool], bool]
    plural: bool


class Say:
    """Random choices of words."""

    def __init__(self, rng: np.random.Generator):
        self.rng = rng

    def one(self, *options: str) -> str:
        """Any of the options."""
        return options[int(self.rng.integers(len(options)))]

    def chance(self, odds: float) -> bool:
        """True in `odds` of cases."""
        return bool(self.rng.random() < odds)

    def below(self, low: int, high: int) -> int:
        """A number from low up to and without high."""
        return int(self.rng.integers(low, high))

    def colour(self) -> str:
        """A colour's name."""
        return self.one(*COLOURS)

    def two_colours(self) -> tuple[str, str]:
        """Two different ones."""
        first, second = self.rng.permutation(list(COLOURS))[:2]
        return str(first), str(second)

    def number(self, n: int) -> str:
        """The number as a word or as a digit."""
        return NUMBERS[n] if n == 0 or self.chance(0.6) else str(n)

    def amount(self, most: int, none: bool = True) -> Amount:
        """An amount between nothing and `most`; half are "a" or "one"."""
        kind = self.rng.random()
        if kind < 0.33:
            return Amount("a", lambda k, _: k >= 1, False)
        if kind < 0.41:
            return Amount(self.one("at least", "atleast") + " " + self.number(1), lambda k, _: k >= 1, False)
        if kind < 0.57:
            return Amount(self.one("exactly", "only") + " " + self.number(1), lambda k, _: k == 1, False)
        if kind < 0.65:
            return Amount(self.number(1), lambda k, exact: k == 1 or (k > 1 and not exact), False)
        if kind < 0.70 and none:
            return Amount("no", lambda k, _: k == 0, self.chance(0.3))
        return self.several(self.below(2, max(3, most + 1)))

    def several(self, n: int) -> Amount:
        """An amount told by n: "two", "exactly two", "at least two", "more than two", ..."""
        kind, word, plural = self.rng.random(), self.number(n), n > 1
        if kind < 0.42:
            return Amount(word, lambda k, exact: k == n if exact else k >= n, plural)
        if kind < 0.62:
            return Amount(self.one("exactly", "exactly", "only") + " " + word, lambda k, _: k == n, plural)
        if kind < 0.82:
            return Amount(self.one("at least", "atleast") + " " + word, lambda k, _: k >= n, plural)
        if kind < 0.92:
            return Amount(self.one("at most", "not more than") + " " + word, lambda k, _: 0 < k <= n, plural)
        if kind < 0.96:
            return Amount("more than " + word, lambda k, _: k > n, plural)
        return Amount(self.one("less than ", "fewer than ") + word, lambda k, _: 0 < k < n, plural)

    def there(self, amount: Amount, rest: str) -> str:
        """The opening: "there is", "there are"."""
        verb = "are" if amount.plural else "is"
        return f"there {verb} {amount.text} {rest}"

    def plural(self, word: str, amount: Amount) -> str:
        """The noun as the amount wants it."""
        return _PLURALS.get(word, word + "s") if amount.plural else word


_PLURALS = {"box": "boxes", "grey box": "grey boxes"}


def colours(box: Box) -> list[str]:
    """The colours of a box, from the lowest item to the highest."""
    return [item.colour for item in box]


def pick(say: Say, table: tuple[tuple[float, Callable], ...]) -> Callable:
    """One of the table's functions, each as likely as its weight."""
    at = say.rng.random() * sum(weight for weight, _ in table)
    for weight, choice in table:
        at -= weight
        if at < 0:
            return choice
    return table[-1][1]
