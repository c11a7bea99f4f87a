"""Statements about towers, in the manner of NLVR's writers, each with its truth."""

from capfilt.data.nlvr.traits import BESIDE, between, count, counted, height, over, run, tower_trait
from capfilt.data.nlvr.words import Say, Statement, Trait, colours, pick
from capfilt.data.nlvr.world import Scene


def tower_statement(say: Say) -> Statement:
    """Any statement about a scene of towers."""
    return pick(say, _SHELLS)(say)


def _existence(say: Say) -> Statement:
    amount, trait = say.amount(3), tower_trait(say)
    noun = say.plural("tower", amount)
    link = say.one("with", "with", "with", "with", "that has", "which has", "having", "containing")
    rest = f"{noun} {link} {trait.text}"
    return Statement(say.there(amount, rest), lambda s, e: amount.test(count(s, trait, e), e))


def _coloured(say: Say) -> Statement:
    colour, amount = say.colour(), say.amount(3)
    size = height(say) if say.chance(0.5) else None
    words = say.there(amount, f"{colour} {say.plural('tower', amount)}" + (f" with {size.text}" if size else ""))
    trait = Trait("", lambda box, e: set(colours(box)) == {colour} and (size is None or size.test(box, e)))
    return Statement(words, lambda s, e: amount.test(count(s, trait, e), e))


def _sized(say: Say) -> Statement:
    """Height before the noun: "a four blocks tower that has ..."."""
    n, amount = say.below(1, 5), say.amount(3)
    trait = pick(say, BESIDE)(say)
    size = f"{say.number(n)} {say.one('block', 'blocks', 'block')}"
    link = say.one("that has", "with", "which has")
    words = say.there(amount, f"{size} {say.plural('tower', amount)} {link} {trait.text}")
    return Statement(words, lambda s, e: amount.test(sum(len(b) == n and trait.test(b, e) for b in s.boxes), e))


def _of_all(say: Say) -> Statement:
    """Part of the three: one of the towers, all towers, none."""
    trait, kind = tower_trait(say), say.rng.random()
    three = say.one("", "three ", "3 ", "the three ")
    if kind < 0.25:
        words, test = f"one of the {three}{say.one('towers', 'tower')} has", lambda k, e: k == 1 or (k > 1 and not e)
    elif kind < 0.35:
        words, test = say.one("one tower has", "1 tower with"), lambda k, e: k == 1 or (k > 1 and not e)
    elif kind < 0.55:
        words, test = f"two of the {three}towers {say.one('have', 'has')}", lambda k, e: k == 2 or (k == 3 and not e)
    elif kind < 0.85:
        words, test = (
            say.one("all the towers have", f"all {three}towers have", "each tower has", "every tower has"),
            lambda k, _: k == 3,
        )
    else:
        words, test = say.one("none of the towers have", "none of the towers has", "no tower has"), lambda k, _: k == 0
    words = words.replace("the the", "the")
    return Statement(f"{words} {trait.text}", lambda s, e: test(count(s, trait, e), e))


def _definite(say: Say) -> Statement:
    """The tower of a height: false without one, in doubt with several that differ."""
    n, trait = say.below(1, 5), pick(say, BESIDE)(say)
    size = say.one("", "exactly ", "only ") + say.number(n) + (" blocks" if n > 1 else " block")
    words = say.one(f"the tower with {size} has {trait.text}", f"the {say.number(n)} block tower has {trait.text}")
    if say.chance(0.15):
        words = f"there is {trait.text} in the tower with {size}"

    def test(scene: Scene, exact: bool) -> bool:
        so = [trait.test(box, exact) for box in scene.boxes if len(box) == n]
        return bool(so) and (all(so) if exact else any(so))

    return Statement(words, test)


def _role(say: Say) -> Statement:
    """Blocks told by their role: "two black blocks as the base of a tower with at least two blocks"."""
    amount, colour, top = say.amount(3), say.colour(), say.chance(0.5)
    end = say.one("top") if top else say.one("base", "base", "bottom")
    trait = Trait("", lambda *_: True)
    tail = say.one("of a tower", "of a tower", "of the towers", "of tower")
    if say.chance(0.6):
        trait = height(say) if say.chance(0.8) else counted(say)
        tail = f"of {say.one('a ', 'a ', '')}tower with {trait.text}"
    words = say.there(amount, f"{colour} {say.plural('block', amount)} {say.one('as', 'as', 'at')} the {end} {tail}")
    so = Trait("", lambda box, e: box[-1 if top else 0].colour == colour and trait.test(box, e))
    return Statement(words, lambda s, e: amount.test(count(s, so, e), e))


def _blocks(say: Say) -> Statement:
    """Blocks wherever they stand: counted, or over one another."""
    colour, amount = say.colour(), say.amount(6)
    if say.chance(0.35):
        noun = say.plural(say.one("block", "block", "item", "square"), amount)
        words = say.there(amount, f"{colour} {noun}")
        return Statement(words, lambda s, e: amount.test(sum(colours(b).count(colour) for b in s.boxes), e))
    trait = say.one("over", "over", "over", "between", "run")
    part = {"over": over, "between": between, "run": run}[trait](say)
    if trait == "run":
        words = f"there are {part.text}"
    else:
        no = say.chance(0.2)
        words = f"there is {'no' + part.text[1:] if no else part.text}"
        if no:
            return Statement(words, lambda s, e: not any(part.test(b, e) for b in s.boxes))
    return Statement(words, lambda s, e: any(part.test(b, e) for b in s.boxes))


def _not_colour(say: Say) -> Statement:
    """A block of another colour over blocks of one."""
    colour, n = say.colour(), say.below(1, 3)
    words = f"there is a block that is not {colour} that has {say.number(n)} {colour} {'blocks' if n > 1 else 'block'} "
    words += say.one("below it", "under it", "bellow it")

    def test(scene: Scene, exact: bool) -> bool:
        return any(
            box[i].colour != colour
            and (colours(box)[i - n : i] == [colour] * n if exact else colours(box)[:i].count(colour) >= n)
            for box in scene.boxes
            for i in range(n, len(box))
        )

    return Statement(words, test)


def _ends_alike(say: Say) -> Statement:
    """Tops or bases of all three compared."""
    top, kind = say.chance(0.5), say.rng.random()
    end = "top" if top else say.one("base", "base", "bottom")
    first, second = say.two_colours()

    def ends(scene: Scene) -> list[str]:
        return [box[-1 if top else 0].colour for box in scene.boxes]

    if kind < 0.3:
        whose = say.one("of all the 3 towers", "of the three towers", "of the towers", "of all towers")
        same = say.chance(0.6)
        words = f"the {end} {whose} are {say.one('the same', 'of the same', 'same') if same else 'not the same'} "
        words += say.one("color", "in color", "colors")
        return Statement(words, lambda s, _: (len(set(ends(s))) == 1) == same)
    if kind < 0.5:
        words = say.one(
            f"the {end} of the three towers are {first}",
            f"the {end} of all towers is {first}",
            f"all the towers have a {first} {end}",
        )
        return Statement(words, lambda s, _: set(ends(s)) == {first})
    if kind < 0.65:
        words = say.one(
            f"one tower has a different {end} color",
            f"only two towers have the same {end} color",
            f"two of the three towers have the same color {end}",
        )
        return Statement(words, lambda s, _: len(set(ends(s))) == 2)
    if kind < 0.8:
        words = f"the {say.one(end, end + 's')} of the three towers are two {first} and one {second}"
        return Statement(words, lambda s, _: sorted(ends(s)) == sorted([first, first, second]))
    if kind < 0.9:
        words = f"the {end} of {say.one('a tower', 'one tower', 'one of the towers')} is {first}"
        exactly_one = "one" in words.split()
        return Statement(words, lambda s, e: ends(s).count(first) == 1 if e and exactly_one else first in ends(s))
    words = say.one(
        f"the {end} of the three towers are of different colors", f"all towers have a different {end} color"
    )
    return Statement(words, lambda s, _: len(set(ends(s))) == 3)


def _heights(say: Say) -> Statement:
    """Heights compared, and what the tallest or smallest tower is like."""
    kind = say.rng.random()
    if kind < 0.3:
        words = say.one(
            "two towers have the same height",
            "there are two towers of the same height",
            "there are two towers with the same number of blocks",
            "two of the towers are of the same height",
        )
        return Statement(words, lambda s, _: len({len(b) for b in s.boxes}) < 3)
    if kind < 0.45:
        words = say.one(
            "all towers have different heights",
            "the three towers have different heights",
            "there are no two towers of the same height",
        )
        return Statement(words, lambda s, _: len({len(b) for b in s.boxes}) == 3)
    if kind < 0.55:
        words = say.one("all towers have the same height", "all the towers are of the same height")
        return Statement(words, lambda s, _: len({len(b) for b in s.boxes}) == 1)
    trait, tall = pick(say, BESIDE)(say), say.chance(0.7)
    which = say.one("tallest", "highest", "longest") if tall else say.one("smallest", "shortest")
    words = f"the {which} tower has {trait.text}"

    def test(scene: Scene, exact: bool) -> bool:
        size = (max if tall else min)(len(b) for b in scene.boxes)
        so = [trait.test(b, exact) for b in scene.boxes if len(b) == size]
        return all(so) if exact else any(so)

    return Statement(words, test)


def _alike(say: Say) -> Statement:
    """Two towers of one height whose ends or colours agree or differ."""
    n, same = say.below(1, 4), say.chance(0.6)
    size = say.one(
        f"with {say.number(n)} {'blocks' if n > 1 else 'block'}", f"of {'single' if n == 1 else say.number(n)} block"
    )
    end = say.one("top", "base", "base")
    words = (
        f"there are two towers {size} and {say.one('the', 'their')} {end} {'is' if same else 'is not'} the same color"
    )

    def test(scene: Scene, _: bool) -> bool:
        ends = [box[-1 if end == "top" else 0].colour for box in scene.boxes if len(box) == n]
        return len(ends) == 2 and (len(set(ends)) == 1) == same

    return Statement(words, test)


_SHELLS = (
    (7.0, _existence), (1.2, _coloured), (0.6, _sized), (1.6, _of_all), (1.0, _definite), (3.5, _role), (2.0, _blocks),
    (0.3, _not_colour), (1.0, _ends_alike), (0.7, _heights), (0.3, _alike),
)  # fmt: skip
