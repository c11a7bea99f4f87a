"""Writes captions of drawn scenes: `full` says everything in one wording, `caption` speaks as people do.

A human-style caption is always true and mostly partial: it leaves out sizes, colours, the background or a whole
object, and varies in order and opening; at the full level it also varies in its words.
"""

import random
import re
from collections.abc import Iterable, Iterator, Sequence

from capfilt.data.world_scene import DIRECTIONS, Scene, Thing, place, relations
from capfilt.data.world_words import BLAND, THINGS, Lexicon, articled, plural

_DEMO_OPENERS = ("a picture of", "an image of", "this drawing shows", "we see", "you can see")
_OPENERS = (
    *_DEMO_OPENERS,
    *("a photo of", "an illustration of", "a sketch of", "clip art of", "a graphic of", "a painting of"),
    *("a poster with", "a card showing", "a print of", "a sticker of", "an icon of", "a rendering of"),
    *("this picture shows", "the image shows", "the artist drew", "someone painted", "a child drew", "i can see"),
    *("look at", "it depicts", "an artwork featuring", "a close view of", "my drawing of", "a design made from"),
)
_VERBS = (("is", "are"), ("sits", "sit"), ("stands", "stand"), ("lies", "lie"), ("floats", "float"), ("rests", "rest"))
_SOME = ("some", "several", "a few", "multiple")
_FRONTS = ("on {ground}, {core}", "against {ground}, {core}", "on {ground} we see {core}", "set on {ground}: {core}")
_BACKS = (
    *("{core} on {ground}", "{core} on {ground}", "{core} against {ground}", "{core} placed on {ground}"),
    *("{core}, set against {ground}", "{core}. it is all on {ground}", "{core}; the scene is set on {ground}"),
)
_GLUE = ("a an and with there is are all together", *_OPENERS, *_SOME, *_FRONTS, *_BACKS, *BLAND, *THINGS)
_DEMO_GLUE = ("a an and on there is with in the", *_DEMO_OPENERS)


class Writer:
    """Writes in the wordings of one lexicon."""

    def __init__(self, lexicon: Lexicon):
        self.lexicon = lexicon
        self._demo = lexicon.level == "demo"

    def full(self, scene: Scene) -> str:
        """Every visible fact, in one wording for each and one order."""
        named = [self._phrase(thing) for thing in scene.things]
        if len(named) == 2:
            core = f"{named[0]} {self._word('relation', scene.layout)} {named[1]}"
        elif len(named) == 3:
            core = f"{named[1]} {self._word('relation', 'between')} {named[0]} and {named[2]}"
        else:
            spots = [place(scene, i) if scene.links else None for i in range(len(named))]
            core = _listed([f"{n} {self._word('relation', s)}" if s else n for n, s in zip(named, spots, strict=True)])
        return articled(f"{core} on {self._word('background', scene.background)}")

    def caption(self, scene: Scene, rnd: random.Random) -> str:
        """One human-style caption: lower case, true, partial, varied."""
        return articled(self._demo_caption(scene, rnd) if self._demo else self._free_caption(scene, rnd))

    def words(self) -> list[str]:
        """Every word a caption can contain, sorted."""
        texts: list[str] = list(_DEMO_GLUE if self._demo else (*_GLUE, *(verb for pair in _VERBS for verb in pair)))
        for table in self.lexicon.tables.values():
            texts += [wording for wordings in table.values() for wording in wordings]
        if not self._demo:
            texts += [plural(noun) for nouns in self.lexicon.tables["shape"].values() for noun in nouns]
            texts += [plural(noun) for noun in THINGS]
        return sorted(set(re.findall(r"[a-z]+", re.sub(r"\{\w+\}", "", " ".join(texts)))))

    def _word(self, kind: str, value: str, rnd: random.Random | None = None) -> str:
        wordings = self.lexicon.tables[kind][value]
        return wordings[0] if rnd is None or len(wordings) == 1 else rnd.choice(wordings)

    def _demo_caption(self, scene: Scene, rnd: random.Random) -> str:
        order = rnd.sample((0, 1), 2)
        first, second = (self._demo_phrase(scene.things[i], rnd) for i in order)
        said = rnd.random()
        if said < 0.06:
            core = first
        elif said < 0.15:
            core = f"{first} {rnd.choice(('and', 'with'))} {second}"
        else:
            (relation,) = (r for r in relations(scene, *order) if r in DIRECTIONS)
            core = f"{first} {self._word('relation', relation)} {second}"
        ground = f"on {self._word('background', scene.background)}" if rnd.random() < 0.55 else ""
        opening = rnd.random()
        if opening < 0.1 and ground:
            return f"{ground} there is {core}"
        if opening < 0.3:
            core = f"{rnd.choice((*_DEMO_OPENERS, 'there is', 'in the picture there is'))} {core}"
        return f"{core} {ground}".strip()

    def _demo_phrase(self, thing: Thing, rnd: random.Random) -> str:
        size = thing.size if rnd.random() < 0.75 else ""
        colour = thing.colour if rnd.random() < 0.92 else ""
        return " ".join(filter(None, ("a", size, colour, thing.shape)))

    def _phrase(self, thing: Thing) -> str:
        """A thing with all it shows, in the plainest words."""
        mods = [self._word("size", thing.size), self._word("colour", thing.colour)]
        if thing.fill != "solid":
            mods.insert(1, self._word("fill", thing.fill))
        noun = self._word("shape", thing.shape)
        if thing.count > 1:
            return " ".join((self._word("count", str(thing.count)), *mods, plural(noun)))
        return " ".join(("a", *mods, noun))

    def _free_caption(self, scene: Scene, rnd: random.Random) -> str:
        core = self._free_core(scene, rnd)
        if rnd.random() < 0.4:
            return core
        ground = self._word("background", scene.background, rnd)
        return rnd.choice(_FRONTS if rnd.random() < 0.2 else _BACKS).format(core=core, ground=ground)

    def _free_core(self, scene: Scene, rnd: random.Random) -> str:
        """Who stands where, in one sentence; things may be left out."""
        count = len(scene.things)
        verbal = rnd.random() < 0.4  # "a star sits left of a ring", not "a picture of a star left of a ring"
        if count > 1 and rnd.random() < 0.12:
            core = self._placed(scene, rnd.randrange(count), rnd, verbal)
        elif count == 2 or (count == 3 and rnd.random() < 0.3):
            core = self._related(scene, rnd.choice(scene.links), rnd, verbal)
        elif count == 3 and rnd.random() < 0.6:
            low, middle, high = (self._free_phrase(t, rnd) for t in scene.things)
            outer = rnd.sample((low, high), 2)
            relation = self._word("relation", "between", rnd)
            core = f"{middle} {self._verb(1, rnd, verbal)}{relation} {outer[0]} and {outer[1]}"
        elif count == 1:
            core = self._placed(scene, 0, rnd, verbal)
        else:
            some = sorted(rnd.sample(range(count), rnd.randint(2, count)))
            core = _listed([self._placed(scene, i, rnd, False) for i in some])
        if verbal or rnd.random() < 0.35:
            return core
        if rnd.random() < 0.3 and not core.startswith(("in ", "at ")):
            plurals = (*_SOME, "two", "three", "four", "some")
            return f"there {'are' if core.startswith(plurals) else 'is'} {core}"
        return core if core.startswith(("in ", "at ")) else f"{rnd.choice(_OPENERS)} {core}"

    def _related(self, scene: Scene, link: Sequence[int], rnd: random.Random, verbal: bool) -> str:
        """Two things and one of the relations between them, either way round; or only their names."""
        a, b = rnd.sample(list(link), 2)
        first, second = (self._free_phrase(scene.things[i], rnd) for i in (a, b))
        if rnd.random() < 0.15:
            return f"{first} {rnd.choice(('and', 'with', 'together with'))} {second}"
        relation = self._word("relation", rnd.choice(relations(scene, a, b)), rnd)
        if verbal and rnd.random() < 0.2:
            return f"{relation} {second} {self._verb(scene.things[a].count, rnd, True)}{first}"
        return f"{first} {self._verb(scene.things[a].count, rnd, verbal)}{relation} {second}"

    def _placed(self, scene: Scene, index: int, rnd: random.Random, verbal: bool) -> str:
        """One thing, with its corner or the centre where it stands in one."""
        thing = scene.things[index]
        phrase, where = self._free_phrase(thing, rnd), place(scene, index)
        if where is None or rnd.random() < 0.3:
            return phrase
        spot = self._word("relation", where, rnd)
        if verbal and rnd.random() < 0.3:
            return f"{spot} {self._verb(thing.count, rnd, True)}{phrase}"
        return f"{phrase} {self._verb(thing.count, rnd, verbal)}{spot}"

    def _verb(self, count: int, rnd: random.Random, verbal: bool) -> str:
        return f"{rnd.choice(_VERBS)[count > 1]} " if verbal else ""

    def _free_phrase(self, thing: Thing, rnd: random.Random) -> str:
        """Some of what a thing shows, in any of the words for it."""
        mods, after = [], ""
        if rnd.random() < 0.85:
            mods.append(self._word("colour", thing.colour, rnd))
        if rnd.random() < (0.65 if thing.fill != "solid" else 0.08):
            if thing.fill in self.lexicon.tables["after"] and rnd.random() < 0.35:
                after = self._word("after", thing.fill, rnd)
            else:
                mods.insert(rnd.randint(0, len(mods)), self._word("fill", thing.fill, rnd))
        if rnd.random() < 0.5:
            mods.insert(0, self._word("size", thing.size, rnd))
        if rnd.random() < 0.08:
            mods.insert(0, rnd.choice(BLAND))
        noun = self._word("shape", thing.shape, rnd)
        if mods and rnd.random() < 0.06:
            noun = rnd.choice(THINGS)
        return " ".join(filter(None, (*_numbered(self._count(thing, rnd), mods, noun), after)))

    def _count(self, thing: Thing, rnd: random.Random) -> str:
        if thing.count > 1:
            exact = self._word("count", str(thing.count), rnd)
            return rnd.choice(_SOME) if rnd.random() < 0.15 else f"a {exact}" if exact.endswith(" of") else exact
        return rnd.choice(("one", "a single")) if rnd.random() < 0.05 else "a"


def _numbered(count: str, mods: Iterable[str], noun: str) -> Iterator[str]:
    yield count
    yield from mods
    yield noun if count in ("a", "one", "a single") else plural(noun)


def _listed(parts: Sequence[str]) -> str:
    if len(parts) == 1:
        return parts[0]
    return f"{', '.join(parts[:-1])} and {parts[-1]}"
