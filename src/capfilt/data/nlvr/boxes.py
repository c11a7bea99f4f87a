"""Statements about boxes and the things in them, in the manner of NLVR's writers, each with its truth."""

from collections.abc import Callable
from typing import NamedTuple

from capfilt.data.nlvr.words import Say, Statement, Trait, colours, pick
from capfilt.data.nlvr.world import SHAPES, SIDES, Box, Item, Scene

ItemTest = Callable[[Item], bool]


class Things(NamedTuple):
    """A kind of item: its noun in the singular and in the plural, and which items are meant."""

    one: str
    many: str
    test: ItemTest

    def count(self, box: Box) -> int:
        """How many there are."""
        return sum(map(self.test, box))


def box_statement(say: Say, towers: bool) -> Statement:
    """Any statement about boxes or items; with `towers`, of the words that suit them."""
    return pick(say, _TOWER_SHELLS if towers else _SHELLS)(say, towers)


def _things(say: Say, towers: bool, coloured: float = 0.75) -> Things:
    """A noun with its adjectives: "black circle", "yellow item", "small triangle", "object"."""
    scattered = (*SHAPES, *SHAPES, "item", "item", "object", "object")
    noun = say.one(*(("item", "object", "block", "square", "box") if towers else scattered))
    colour = say.colour() if say.chance(coloured) else ""
    size = say.one("small", "big", "medium") if not towers and say.chance(0.06) else ""
    side = {"": 0, **SIDES, "big": SIDES["large"]}[size]
    words = " ".join(word for word in (size, colour, noun) if word)
    shape = noun if noun in SHAPES else ""

    def test(item: Item) -> bool:
        return (not shape or item.shape == shape) and (not colour or item.colour == colour) and side in (0, item.side)

    return Things(words, words + ("es" if noun == "box" else "s"), test)


class Place(NamedTuple):
    """Where an item is ("touching the wall", "not touching the base") and which items are there."""

    text: str
    test: ItemTest


def _touching(say: Say) -> Place:
    how = say.one("touching", "touching", "closely touching")
    kind = say.rng.random()
    article, ending = say.one("the", "the", "a", "a"), ""
    if kind < 0.45:
        where, walls, need = say.one("edge", "edge", "wall", "wall", "side"), None, 1
    elif kind < 0.60:
        where, walls, need, ending = "corner", None, 2, say.one("", "", " of a box")
    elif kind < 0.90:
        where, walls, need = say.one("base", "base", "bottom", "bottom edge", "bottom base"), "bottom", 1
        ending = say.one("", " of a box", " of a box", " of the box")
    else:
        walls, need = say.one("right", "right", "left", "top"), 1
        where, ending = f"{walls} {say.one('wall', 'edge', 'side')}", say.one("", " of a box")
    article = "an" if (article, where) == ("a", "edge") else article
    no = say.chance(0.12)

    def test(item: Item) -> bool:
        touched = item.touches
        return ((walls in touched) if walls else len(touched) >= need) != no

    return Place(f"{'not ' if no else ''}{how} {article} {where}{ending}", test)


# Traits: what a box is "with".


def _counted(say: Say, towers: bool) -> Trait:
    amount, things = say.amount(5), _things(say, towers, 0.6)
    words = f"{amount.text} {things.many if amount.plural else things.one}"
    return Trait(words, lambda box, e: amount.test(things.count(box), e))


def _number(say: Say, towers: bool) -> Trait:
    amount = say.several(say.below(1, 8 if not towers else 5))
    noun = say.plural(say.one("item", "item", "object", "thing"), amount)
    return Trait(f"{amount.text} {noun}", lambda box, e: amount.test(len(box), e))


def _both(say: Say, towers: bool) -> Trait:
    """Two kinds of things: "a yellow circle and at least two black items"."""
    first, second = _counted(say, towers), _counted(say, towers)
    if say.chance(0.5):
        kinds = [_things(say, towers), _things(say, towers)]
        words = f"a {kinds[0].one} {say.one('and', 'and', 'and also')} a {kinds[1].one}"
        return Trait(words, lambda box, _: all(kind.count(box) for kind in kinds))
    return Trait(f"{first.text} and {second.text}", lambda box, e: first.test(box, e) and second.test(box, e))


def _only(say: Say, towers: bool) -> Trait:
    first, second = say.two_colours()
    n = say.below(1, 6)
    some = say.one("", "", f"{say.number(n)} ")
    items = "item" if some and n == 1 else say.one("items", "items", "objects")

    def sized(box: Box) -> bool:
        return not some or len(box) == n

    if say.chance(0.5):
        words = say.one(
            f"{some}{items} of only {first} color", f"only {some}{first} {items}", f"{some}{items} all {first}"
        )
        return Trait(words, lambda box, _: set(colours(box)) == {first} and sized(box))
    words = say.one(
        f"only {some}{first} and {second} {items}",
        f"{some}{items} of only {first} and {second} color",
        f"{some}{items} with only {first} and {second} color",
    )
    return Trait(words, lambda box, _: set(colours(box)) == {first, second} and sized(box))


def _variety(say: Say, towers: bool) -> Trait:
    """How many colours, with or without a number of items."""
    kinds, n = say.below(1, 4), say.below(2, 7)
    some = say.one("", f"{say.number(n)} ")
    items = say.one("items", "items", "objects")
    of = (
        say.one("of the same color", "of only one color", "of same color"),
        say.one("of 2 different colors", "of two different colors", "of only 2 colors", "of exactly two colors"),
        say.one("of all 3 different colors", "of all three colors", "of 3 different colors", "of all 3 colors"),
    )[kinds - 1]
    if kinds == 3 and n == 3 and some and say.chance(0.3):
        of = "of different colors"
    return Trait(
        f"{some}{items} {of}", lambda b, _: len(set(colours(b))) == kinds and (len(b) == n if some else len(b) > 1)
    )


def _shapes(say: Say, towers: bool) -> Trait:
    n, kinds = say.below(2, 6), say.below(1, 4)
    some = say.one("", f"{say.number(n)} ", f"only {say.number(n)} ")
    of = (say.one("of the same shape", "of same shape"), "of two different shapes", "of all three shapes")[kinds - 1]
    return Trait(
        f"{some}{say.one('items', 'objects')} {of}",
        lambda b, _: len({i.shape for i in b}) == kinds and (len(b) == n if some else len(b) > 1),
    )


def _of_which(say: Say, towers: bool) -> Trait:
    """A number, and a number of those: "3 items of which at least 1 is blue"."""
    n, part = say.below(2, 7), say.several(say.below(1, 4))
    most = " at most" if say.chance(0.2) else ""
    things = _things(say, towers, 1.0) if say.chance(0.4) and not towers else None
    colour, verb = say.colour(), "are" if part.plural else "is"
    items = f"{say.number(n)} {say.one('items', 'objects')}{most}"
    if things:
        words = f"{items} of which {part.text} {verb} {things.many if part.plural else 'a ' + things.one}"
    else:
        words = f"{items} {say.one('of which', 'and', 'of which')} {part.text} {verb} {colour}"
    test = things.test if things else lambda item: item.colour == colour
    return Trait(words, lambda b, e: (len(b) <= n if most else len(b) == n) and part.test(sum(map(test, b)), e))


def _on_top(say: Say, towers: bool) -> Trait:
    """Who lies highest, or what lies beneath."""
    colour, below = say.two_colours()
    n, kind = say.below(2, 5), say.rng.random()
    if kind < 0.35:
        words = say.one(
            f"a {colour} item on top",
            f"a {colour} item at the top",
            f"{say.number(n)} items where the {colour} item is on top",
        )
        counted = "where" in words

        def test(box: Box, exact: bool) -> bool:
            so = bool(box) and box[-1].colour == colour
            return so and (not counted or (len(box) == n and (not exact or colours(box).count(colour) == 1)))

        return Trait(words, test)
    if kind < 0.6:
        words = f"a {colour} item on top and a {below} item {say.one('beneath', 'below', 'under')} it"
        return Trait(
            words,
            lambda b, e: len(b) > 1 and b[-1].colour == colour and below in (colours(b)[-2:-1] if e else colours(b)),
        )
    if kind < 0.8:
        words = (
            f"3 items where the {colour} is in the middle"
            if say.chance(0.5)
            else f"three items and the {colour} item is in the middle"
        )
        return Trait(
            words, lambda b, e: len(b) == 3 and b[1].colour == colour and (not e or colours(b).count(colour) == 1)
        )
    nth = say.below(2, 4)
    words = f"a {colour} item {say.one('at', 'in')} the {('second', 'third')[nth - 2]} place from the bottom"
    return Trait(words, lambda b, _: len(b) >= nth and b[nth - 1].colour == colour)


def _same_number(say: Say, towers: bool) -> Trait:
    first, second = say.two_colours()
    kind = say.rng.random()
    if kind < 0.6:
        words = f"the same number of {first} and {second} items"
        return Trait(
            words, lambda b, e: (n := colours(b).count(first)) == colours(b).count(second) and (n > 0 or not e)
        )
    words = f"more {first} items than {second} items"
    return Trait(
        words, lambda b, e: colours(b).count(first) > colours(b).count(second) and (not e or second in colours(b))
    )


def _at_wall(say: Say, towers: bool) -> Trait:
    """Things at a wall, alone or with other things."""
    amount, things, place = say.amount(3), _things(say, towers), _touching(say)
    words = f"{amount.text} {things.many if amount.plural else things.one} {place.text}"
    other = _counted(say, towers) if say.chance(0.35) else None
    if other:
        words += f" and {other.text}"

    def test(box: Box, exact: bool) -> bool:
        so = amount.test(sum(things.test(i) and place.test(i) for i in box), exact)
        return so and (other is None or other.test(box, exact))

    return Trait(words, test)


_TRAITS = (
    (3.0, _counted), (2.0, _number), (2.0, _both), (1.5, _only), (1.5, _variety), (0.4, _shapes), (1.2, _of_which),
    (1.0, _on_top), (0.4, _same_number), (1.2, _at_wall),
)  # fmt: skip
_TOWER_TRAITS = tuple(entry for entry in _TRAITS if entry[1] not in (_shapes, _at_wall))


# Shells: how many boxes are so, how many items there are.


def _boxes(say: Say, towers: bool) -> Statement:
    amount, trait = say.amount(3), pick(say, _TOWER_TRAITS if towers else _TRAITS)(say, towers)
    noun = say.plural(say.one("box", "box", "box", "grey box", "grey square"), amount)
    link = say.one("with", "with", "with", "that has", "containing", "which has")
    words = say.there(amount, f"{noun} {link} {trait.text}")
    return Statement(words, lambda s, e: amount.test(sum(trait.test(b, e) for b in s.boxes), e))


def _of_the_boxes(say: Say, towers: bool) -> Statement:
    trait, kind = pick(say, _TOWER_TRAITS if towers else _TRAITS)(say, towers), say.rng.random()
    noun = say.one("grey square", "grey box", "box")
    many = say.plural(noun, say.several(2)._replace(plural=True))
    has = say.one("has", "contains", "contain", "have")
    if kind < 0.45:
        least, words = 1, say.one(f"one of the {noun} {has}", f"one of the {many} {has}", f"one {noun} {has}")
    elif kind < 0.55:
        least, words = 2, say.one(f"two of the {many} {has}", f"two {many} {has}")
    elif kind < 0.92:
        every = say.one(f"each {noun}", f"every {noun}", f"all {many}", f"all the {many}")
        least, words = 3, f"{every} {has}"
    else:
        least, words = 0, f"none of the {many} {has}"

    def test(scene: Scene, exact: bool) -> bool:
        n = sum(trait.test(box, exact) for box in scene.boxes)
        return n == least if exact or not least else n >= least

    return Statement(f"{words} {trait.text}", test)


def _items(say: Say, towers: bool) -> Statement:
    """Items of the whole scene."""
    amount, things = say.amount(5), _things(say, towers, 0.8)
    words = say.there(amount, things.many if amount.plural else things.one)
    place = None
    if not towers and say.chance(0.75):
        place = _touching(say)
        words += " " + place.text
    elif say.chance(0.2):
        words += say.one(" in a box", " in the boxes")
    return Statement(
        words,
        lambda s, e: amount.test(
            sum(things.test(i) and (place is None or place.test(i)) for b in s.boxes for i in b), e
        ),
    )


def _all_items(say: Say, towers: bool) -> Statement:
    """All or none of a kind stand at a wall."""
    things, place = _things(say, towers), _touching(say)
    kind = say.rng.random()
    if kind < 0.4:
        words = say.one(
            f"all {things.many} are {place.text}",
            f"all the {things.many} are {place.text}",
            f"all {things.one} are {place.text}",
        )
    elif kind < 0.8:
        words = f"none of the {things.many} are {place.text}"
    else:
        words = f"not all {things.many} are {place.text}"

    def test(scene: Scene, exact: bool) -> bool:
        so = [place.test(i) for b in scene.boxes for i in b if things.test(i)]
        if not so:
            return exact  # nothing to speak of: in doubt
        return all(so) if kind < 0.4 else not any(so) if kind < 0.8 else not all(so)

    return Statement(words, test)


def _in_every_box(say: Say, towers: bool) -> Statement:
    trait = _counted(say, towers)
    every = say.one("every box", "each box", "every grey box", "all the boxes", "all boxes", "each grey square")
    verb = "are" if trait.text.split()[0] in ("2", "3", "4", "5", "two", "three", "four", "five") else "is"
    words = f"there {verb} {trait.text} in {every}"
    return Statement(words, lambda s, e: all(trait.test(b, e) for b in s.boxes))


def _colours_at_walls(say: Say, towers: bool) -> Statement:
    """Which colours stand at a wall."""
    place, n = _touching(say), say.below(1, 4)
    words = (
        f"there is only one color {place.text}",
        say.one(f"only two colors are {place.text}", f"there are only 2 colors {place.text}"),
        say.one(f"items of all 3 colors are {place.text}", f"all three colors are {place.text}"),
    )[n - 1]
    return Statement(words, lambda s, _: len({i.colour for b in s.boxes for i in b if place.test(i)}) == n)


def _tops(say: Say, towers: bool) -> Statement:
    """What lies on top, box by box."""
    colour, amount = say.colour(), say.amount(3)
    if say.chance(0.5):
        item = say.one("item", "object", "block")
        every = say.one("in every box", "in each box", "in all boxes")
        return Statement(
            f"the {colour} {item} is on top {every}", lambda s, _: all(b[-1].colour == colour for b in s.boxes)
        )
    words = f"{amount.text} {colour} {say.plural('item', amount)} {'are' if amount.plural else 'is'} on top"
    return Statement(words, lambda s, e: amount.test(sum(b[-1].colour == colour for b in s.boxes), e))


_SHELLS = (
    (5.0, _boxes), (3.0, _of_the_boxes), (7.0, _items), (0.7, _all_items), (1.0, _in_every_box),
    (0.4, _colours_at_walls), (0.3, _tops),
)  # fmt: skip
_TOWER_SHELLS = ((3.0, _boxes), (1.0, _of_the_boxes), (1.5, _items), (1.0, _in_every_box), (0.7, _tops))
