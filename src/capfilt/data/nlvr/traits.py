"""What a tower can be said to have ("a black block at the base"), each with the towers of which it holds."""

from itertools import pairwise

from capfilt.data.nlvr.words import Amount, Say, Trait, colours, pick
from capfilt.data.nlvr.world import Box, Scene


def height(say: Say) -> Trait:
    """How many blocks it has."""
    amount = say.several(say.below(1, 5)) if say.chance(0.5) else _exactly(say, say.below(1, 5))
    noun = say.plural(say.one("block", "block", "block", "box", "item", "square"), amount)
    return Trait(f"{amount.text} {noun}", lambda box, exact: amount.test(len(box), exact))


def _exactly(say: Say, n: int) -> Amount:
    return Amount(say.one("", "", "exactly ", "only ") + say.number(n), lambda k, _: k == n, n > 1)


def counted(say: Say) -> Trait:
    """How many blocks of a colour."""
    amount, colour = say.amount(3), say.colour()
    noun = say.plural(say.one("block", "block", "block", "item", "box"), amount)
    return Trait(f"{amount.text} {colour} {noun}", lambda box, exact: amount.test(colours(box).count(colour), exact))


def _end(say: Say) -> Trait:
    colour, top = say.colour(), say.chance(0.5)
    end = say.one("top") if top else say.one("base", "base", "bottom")
    words = say.one(
        f"a {colour} block at the {end}",
        f"a {colour} block at the {end}",
        f"{colour} block at {end}",
        f"a {colour} {end}",
        f"a {colour} block on the {end}",
        f"{colour} as a {end}",
        f"{colour} {end}",
        f"a {end} of {colour} block",
        f"a {colour} block as the {end}",
        f"the {end} block {colour}",
        f"{colour} at the {end}",
    )
    return Trait(words, lambda box, _: box[-1 if top else 0].colour == colour)


def _ends(say: Say) -> Trait:
    low, high = say.colour(), say.colour()
    if low == high:
        words = say.one(f"{low} block at the top and at the base", f"{low} base and top", f"a {low} block at both ends")
    else:
        words = say.one(
            f"{low} as a base and {high} as a top block",
            f"{low} base and {high} top",
            f"a {low} block at the base and a {high} block at the top",
            f"a {high} block at the top and a {low} block at the bottom",
            f"{high} top and {low} base",
        )
    return Trait(words, lambda box, _: box[0].colour == low and box[-1].colour == high)


def _place(say: Say) -> Trait:
    colour, n = say.colour(), say.below(2, 4)
    nth = ("second", "third")[n - 2]
    if say.chance(0.7):
        end = say.one("base", "bottom")
        words = say.one(f"a {colour} block {nth} from the {end}", f"the {nth} block from the {end} {colour}")
        return Trait(words, lambda box, _: len(box) >= n and box[n - 1].colour == colour)
    words = say.one(f"a {colour} block {nth} from the top", f"the {nth} block from the top {colour}")
    if n == 2 and say.chance(0.6):
        words = say.one(f"a {colour} color block below the top block", f"a {colour} block just below the top")
    return Trait(words, lambda box, _: len(box) >= n and box[-n].colour == colour)


def _middle(say: Say) -> Trait:
    colour = say.colour()
    words = f"a {colour} block in the middle" + say.one("", "", " of it")

    def test(box: Box, exact: bool) -> bool:
        inner = colours(box)[1:-1]
        return colour in inner and (not exact or len(inner) == 1 or set(inner) == {colour})

    return Trait(words, test)


def over(say: Say) -> Trait:
    """Two blocks in one tower; "on" is at once above, "over" and "below" may leave blocks between."""
    high, low = say.two_colours() if say.chance(0.8) else (say.colour(),) * 2
    if say.chance(0.6):
        link = say.one("above", "over", "on top of", "on", "on the top of", "directly above")
        words = f"a {high} block {link} a {low} block"
    else:
        link = say.one("below", "under", "bellow", "beneath", "right below")
        words = f"a {low} block {link} a {high} block"
    direct = link.split()[0] in ("on", "directly", "right")
    return Trait(words, lambda box, exact: _stands_on(colours(box), high, low, exact or direct))


def _stands_on(found: list[str], high: str, low: str, direct: bool) -> bool:
    if direct:
        return (low, high) in pairwise(found)
    return low in found and high in found[found.index(low) + 1 :]


def between(say: Say) -> Trait:
    """A block between two of another colour."""
    inner, outer = say.two_colours()
    words = f"a {inner} block {say.one('in between', 'between')} two {outer} blocks"
    return Trait(
        words, lambda box, _: any(colours(box)[i : i + 3] == [outer, inner, outer] for i in range(len(box) - 2))
    )


def run(say: Say) -> Trait:
    """Blocks of a colour one on another."""
    colour, n = say.colour(), say.below(2, 4)
    least = say.one("", "", "at least ")
    tail = say.one(
        "stacked together", "stacked together", "attached with each other", "on top of each other", "in a row"
    )
    words = f"{least}{say.number(n)} {colour} blocks {tail}"
    return Trait(
        words, lambda box, exact: _longest(box, colour) == n if exact and not least else _longest(box, colour) >= n
    )


def _longest(box: Box, colour: str) -> int:
    best = now = 0
    for found in colours(box):
        now = now + 1 if found == colour else 0
        best = max(best, now)
    return best


def _only(say: Say) -> Trait:
    first, second = say.two_colours()
    if say.chance(0.45):
        words = say.one(
            f"only {first} blocks", f"blocks of {first} color only", f"all {first} blocks", f"{first} blocks only"
        )
        return Trait(words, lambda box, _: set(colours(box)) == {first})
    only = say.one("only ", "only ", "")
    words = only + say.one(f"{first} and {second} blocks", f"blocks of {first} and {second} color")
    wanted = {first, second}
    return Trait(
        words, lambda box, exact: set(colours(box)) == wanted if exact or only else wanted <= set(colours(box))
    )


def _variety(say: Say) -> Trait:
    n = say.below(1, 4)
    words = (
        say.one(
            "blocks of the same color",
            "all the blocks of the same color",
            "blocks of single color",
            "only one color",
            "only same blocks in color",
            "all blocks the same color",
        ),
        say.one("blocks of two different colors", "2 colors", "blocks of only two colors", "exactly two colors"),
        say.one(
            "blocks of all three colors",
            "the blocks of all three colors",
            "three different colors",
            "blocks of different colors",
            "all 3 colors",
        ),
    )[n - 1]
    return Trait(words, lambda box, _: len(set(colours(box))) == n and (n > 1 or len(box) > 1 or "only" in words))


def _none_of(say: Say) -> Trait:
    colour = say.colour()
    return Trait(
        say.one(f"no {colour} block", f"no {colour} blocks", f"no {colour}"), lambda b, _: colour not in colours(b)
    )


SIMPLE = (
    (3.0, height), (4.0, _end), (2.5, counted), (0.7, _ends), (0.7, _place), (0.7, _middle), (1.5, over),
    (0.4, between), (1.0, run), (1.0, _only), (1.0, _variety), (0.4, _none_of),
)  # fmt: skip
BESIDE = tuple(entry for entry in SIMPLE if entry[1] is not height)


def tower_trait(say: Say) -> Trait:
    """One trait, or a height and another."""
    kind = say.rng.random()
    if kind < 0.7:
        return pick(say, SIMPLE)(say)
    first = height(say) if kind < 0.93 else pick(say, SIMPLE)(say)
    second = pick(say, BESIDE)(say)
    link = say.one("and", "having", "that has", "and has", "with", "which has")
    return Trait(f"{first.text} {link} {second.text}", lambda b, e: first.test(b, e) and second.test(b, e))


def count(scene: Scene, trait: Trait, exact: bool) -> int:
    """How many towers are so."""
    return sum(trait.test(box, exact) for box in scene.boxes)
