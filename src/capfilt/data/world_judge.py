"""Judges any text against a scene: which facts it states, which of them are true, which visible facts it covers.

A noun phrase states its shape, colour, size (and fill and number) as one fact each; a relation and a background are
one fact each. Phrases are credited against the best one-to-one assignment of phrases to things; phrases beyond the
number of things are false, so that saying the same thing twice does not pay. A repeated word inside one phrase counts
once; two different colours in one phrase are two facts. A relation is true when both its ends are assigned, their
shapes are right, and the scene says so; one without ends is false. Words the world does not know state nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import permutations

from capfilt.data.world_scene import PLACES, Scene, Thing, holds
from capfilt.data.world_words import Found, Lexicon

_MOST_PHRASES = 6  # phrases that take part in the assignment; a scene has at most four things


@dataclass(frozen=True)
class Judgement:
    """stated: facts in the text; true: those that hold; visible: facts in the scene; covered: visible facts stated."""

    stated: int
    true: int
    visible: int
    covered: int

    @property
    def truth(self) -> float:
        """Share of stated facts that are true, in [0, 1]; 0 where nothing is stated."""
        return self.true / self.stated if self.stated else 0.0

    @property
    def coverage(self) -> float:
        """Share of visible facts that are stated, in [0, 1]."""
        return self.covered / self.visible


@dataclass
class _Phrase:
    """One noun phrase: its claims as (kind, value), each once, in order of mention."""

    claims: dict[tuple[str, str], None] = field(default_factory=dict)

    def shape_fits(self, thing: Thing) -> bool:
        return all(value == thing.shape for kind, value in self.claims if kind == "shape")


@dataclass(frozen=True)
class _Claim:
    """A relation between phrases, its subject first; fewer ends than the relation needs make it false."""

    relation: str
    ends: tuple[int, ...]


def judge(lexicon: Lexicon, scene: Scene, text: str) -> Judgement:
    """Every stated fact of `text` weighed against `scene`. Any text will do; none raises."""
    phrases, claims, backgrounds = _parse(lexicon.find(text))
    things, stage = scene.things, range(min(len(phrases), _MOST_PHRASES))
    right = [[[c for c in phrases[p].claims if _fits(c, thing)] for thing in things] for p in stage]
    best, best_true = {}, -1
    for seats in _assignments(len(stage), len(things)):
        true = sum(len(right[p][t]) for p, t in seats.items()) + sum(_true(c, seats, phrases, scene) for c in claims)
        if true > best_true:
            best, best_true = seats, true
    grounded = scene.background in backgrounds
    covered = sum(len({_visible(kind) for kind, _ in right[p][t]} & _facts(things[t])) for p, t in best.items())
    tied = [{best[end] for end in c.ends} for c in claims if _true(c, best, phrases, scene)]
    linked = sum(any(set(link) <= ends and (len(link) > 1 or len(ends) == 1) for ends in tied) for link in scene.links)
    return Judgement(
        stated=sum(len(p.claims) for p in phrases) + len(claims) + len(backgrounds),
        true=max(best_true, 0) + grounded,
        visible=sum(len(_facts(t)) for t in things) + len(scene.links) + 1,
        covered=covered + linked + grounded,
    )


def _facts(thing: Thing) -> set[str]:
    """The kinds of facts a thing shows: its fill only where it is not plain, its number only where it is not one."""
    facts = {"shape", "colour", "size"}
    if thing.fill != "solid":
        facts.add("fill")
    if thing.count > 1:
        facts.add("count")
    return facts


def _visible(kind: str) -> str:
    return "" if kind == "many" else kind  # "some stars" is true of three, but does not tell the number


def _fits(claim: tuple[str, str], thing: Thing) -> bool:
    kind, value = claim
    if kind == "many":
        return thing.count > 1
    return str(getattr(thing, kind)) == value


def _true(claim: _Claim, seats: dict[int, int], phrases: list[_Phrase], scene: Scene) -> bool:
    if not all(end in seats and phrases[end].shape_fits(scene.things[seats[end]]) for end in claim.ends):
        return False
    return bool(claim.ends) and holds(claim.relation, scene, [seats[end] for end in claim.ends])


def _assignments(phrases: int, things: int) -> Iterator[dict[int, int]]:
    """Every way to seat as many phrases as there are things, in a fixed order."""
    if phrases <= things:
        for seats in permutations(range(things), phrases):
            yield dict(enumerate(seats))
    else:
        for chosen in permutations(range(phrases), things):
            yield {p: t for t, p in enumerate(chosen)}


class _Reader:
    """Turns found wordings into phrases and relations, one at a time."""

    def __init__(self) -> None:
        self.phrases: list[_Phrase] = []
        self.pending: list[tuple[str, str]] = []  # adjectives that wait for their noun
        self.clauses: list[list[int | str]] = [[]]  # phrase numbers and relation names, clause by clause

    def close(self) -> None:
        """Ends an unfinished phrase: adjectives without a noun still state something."""
        if self.pending:
            self._add(_Phrase(dict.fromkeys(self.pending)))

    def noun(self, shape: str | None, several: bool) -> None:
        claims = dict.fromkeys(self.pending)
        if shape is not None:
            claims["shape", shape] = None
        if several and not any(kind == "count" for kind, _ in claims):
            claims["many", ""] = None
        self._add(_Phrase(claims))

    def _add(self, phrase: _Phrase) -> None:
        self.clauses[-1].append(len(self.phrases))
        self.phrases.append(phrase)
        self.pending = []


def _parse(found: list[Found]) -> tuple[list[_Phrase], list[_Claim], set[str]]:
    reader, backgrounds = _Reader(), set()
    for word in (f.word for f in found):
        if word.kind in ("colour", "size", "fill", "count"):
            reader.pending.append((word.kind, word.value))
        elif word.kind in ("shape", "thing"):
            reader.noun(word.value or None, word.plural)
        elif word.kind == "after":
            reader.close()
            if reader.phrases:
                reader.phrases[-1].claims["fill", word.value] = None
        elif word.kind == "background":
            reader.close()
            backgrounds.add(word.value)
        else:  # a relation, an article, "and" or a full stop
            reader.close()
            if word.kind == "relation":
                reader.clauses[-1].append(word.value)
            elif word.kind == "stop":
                reader.clauses.append([])
    reader.close()
    claims = [claim for clause in reader.clauses for claim in _claims(clause)]
    return reader.phrases, claims, backgrounds


def _claims(clause: list[int | str]) -> Iterator[_Claim]:
    """A relation takes the nearest phrase before it and the next after it; at the start of a clause ("above a ring is
    a star") its subject comes last."""
    for at, item in enumerate(clause):
        if not isinstance(item, str):
            continue
        before = [end for end in clause[:at] if isinstance(end, int)]
        after = [end for end in clause[at + 1 :] if isinstance(end, int)]
        if item in PLACES:
            ends = (before[-1:] or after[:1])[:1]
        else:
            others = 2 if item == "between" else 1
            ends = before[-1:] + after[:others] if before else after[others : others + 1] + after[:others]
            if len(ends) <= others:
                ends = []
        yield _Claim(item, tuple(ends))
