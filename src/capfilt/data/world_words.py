"""The drawn world's language: which wordings stand for which fact, and how to find them in a text.

Every table maps a value to its wordings, the plainest first. The demo level uses only that first wording.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from capfilt.data.world_scene import DEMO_BACKGROUNDS, DEMO_COLOURS, DEMO_SHAPES, DEMO_SIZES, DIRECTIONS, Level

Table = dict[str, tuple[str, ...]]

_SHAPES: Table = {
    "circle": ("circle", "disc", "disk"),
    "square": ("square", "box"),
    "triangle": ("triangle", "wedge"),
    "star": ("star", "pentagram"),
    "cross": ("cross", "plus sign"),
    "ring": ("ring", "hoop", "donut"),
    "heart": ("heart", "valentine"),
    "moon": ("moon", "crescent"),
    "diamond": ("diamond", "rhombus"),
    "oval": ("oval", "ellipse"),
    "rectangle": ("rectangle", "bar"),
    "hexagon": ("hexagon", "honeycomb cell"),
    "arrow": ("arrow", "pointer"),
    "semicircle": ("semicircle", "half circle", "dome"),
    "drop": ("drop", "teardrop", "droplet"),
    "cloud": ("cloud",),
    "house": ("house", "hut", "cottage"),
    "tree": ("tree", "fir tree", "pine"),
    "flower": ("flower", "blossom", "bloom"),
    "bolt": ("lightning bolt", "flash", "thunderbolt"),
    "mushroom": ("mushroom", "toadstool"),
    "crown": ("crown", "tiara"),
}
_COLOURS: Table = {
    "red": ("red", "scarlet", "crimson"),
    "orange": ("orange", "tangerine"),
    "yellow": ("yellow", "golden", "lemon"),
    "green": ("green", "emerald"),
    "blue": ("blue", "cobalt"),
    "purple": ("purple", "violet"),
    "pink": ("pink", "rosy"),
    "brown": ("brown", "chocolate"),
    "cyan": ("cyan", "turquoise"),
    "lime": ("lime", "light green"),
    "black": ("black", "jet"),
    "white": ("white", "ivory"),
    "gray": ("gray", "grey", "silver"),
    "navy": ("navy", "dark blue", "midnight blue"),
    "teal": ("teal", "petrol"),
    "maroon": ("maroon", "burgundy", "dark red"),
    "magenta": ("magenta", "fuchsia", "hot pink"),
    "beige": ("beige", "cream"),
}
_SIZES: Table = {
    "small": ("small", "little", "tiny", "miniature"),
    "medium": ("medium", "medium sized", "mid sized", "midsize"),
    "large": ("large", "big", "huge", "enormous", "giant"),
}
_FILLS: Table = {
    "solid": ("solid", "filled", "plain"),
    "outlined": ("outlined", "hollow", "unfilled"),
    "striped": ("striped", "stripy", "lined"),
    "dotted": ("dotted", "spotted", "spotty"),
    "checkered": ("checkered", "chequered", "checked"),
    "gradient": ("shaded", "fading", "graded"),
    "speckled": ("speckled", "freckled", "grainy"),
}
_AFTER: Table = {  # fills that follow their noun
    "striped": ("with stripes", "covered in stripes"),
    "dotted": ("with dots", "with spots", "covered in dots"),
    "checkered": ("with a checkered pattern", "with checks"),
    "gradient": ("with a gradient", "with shading"),
    "speckled": ("with speckles", "sprinkled with specks"),
}
_COUNTS: Table = {
    "1": ("one", "single"),
    "2": ("two", "pair of", "couple of"),
    "3": ("three", "trio of"),
    "4": ("four", "quartet of"),
}
_RELATIONS: Table = {
    "left": ("left of", "to the left of", "on the left side of", "on the left of"),
    "right": ("right of", "to the right of", "on the right side of", "on the right of"),
    "above": ("above", "over", "higher than"),
    "below": ("below", "under", "beneath", "underneath", "lower than"),
    "near": ("next to", "near", "close to", "beside", "not far from"),
    "far": ("far from", "far away from", "at a distance from"),
    "between": ("between", "in between", "flanked by"),
    "inside": ("inside", "within", "enclosed by"),
    "around": ("around", "surrounding", "containing", "enclosing"),
    "overlapping": ("overlapping", "touching"),
    "front": ("in front of", "partly covering", "on top of"),
    "behind": ("behind", "partly hidden by", "half covered by"),
    "top left": ("in the top left corner", "in the upper left corner", "at the top left"),
    "top right": ("in the top right corner", "in the upper right corner", "at the top right"),
    "bottom left": ("in the bottom left corner", "in the lower left corner", "at the bottom left"),
    "bottom right": ("in the bottom right corner", "in the lower right corner", "at the bottom right"),
    "centre": ("in the centre", "in the center", "in the middle", "at the centre"),
}
_BACKGROUNDS: Table = {  # textures; a plain background is its colour followed by a ground noun
    "bricks": ("a brick wall", "bricks", "a wall of bricks", "brickwork"),
    "wood": ("a wooden table", "wooden planks", "a wooden floor", "timber"),
    "grass": ("grass", "a lawn", "a meadow", "a grassy field"),
    "sky": ("a cloudy sky", "the daytime sky", "a pale sky"),
    "night": ("a night sky", "a starry sky", "a starry night"),
    "water": ("water", "the sea", "ocean waves", "a lake"),
    "sand": ("sand", "a beach", "a desert", "a sandy ground"),
    "checks": ("a checkered tablecloth", "a checkered cloth", "gingham"),
    "stripes": ("striped wallpaper", "a striped wall", "a striped curtain"),
    "graph": ("graph paper", "squared paper", "a grid", "a sheet of graph paper"),
    "polka": ("polka dots", "dotted paper", "a polka dot sheet"),
    "sunset": ("a sunset", "an evening sky", "a sky at dusk", "twilight"),
}
_GROUNDS = ("background", "backdrop", "canvas")
THINGS = ("shape", "object", "figure", "thing")  # a noun that leaves the shape open
BLAND = ("nice", "cute", "simple", "pretty", "neat", "lovely", "bright", "funny", "crisp", "charming", "bold", "fine")
_IRREGULAR = {"box": "boxes", "cross": "crosses", "flash": "flashes", "rhombus": "rhombuses"}
_TOKEN = re.compile(r"[a-z]+|[.;]")


@dataclass(frozen=True)
class Word:
    """What a wording means: its kind ("colour", "shape", "relation", ...), its value, and whether it is a plural."""

    kind: str
    value: str
    plural: bool = False


@dataclass(frozen=True)
class Found:
    """A wording found in a text, at characters start to end."""

    word: Word
    start: int
    end: int


STOP = Word("stop", "")  # the end of a sentence
ARTICLE = Word("article", "")
AND = Word("and", "")


def plural(noun: str) -> str:
    """The plural of one of this world's shape nouns."""
    head, last = noun.rpartition(" ")[::2]
    return f"{head} {_IRREGULAR.get(last, last + 's')}".strip()


def articled(text: str) -> str:
    """The text with `a` and `an` as the next word asks for."""
    return re.sub(r"\ban?(?= ([a-z]))", lambda m: "an" if m[1] in "aeiou" else "a", text)


class Lexicon:
    """The wordings of one level.

    tables: kind → value → wordings as a caption writes them (nouns in the singular).
    """

    def __init__(self, level: Level):
        self.level = level
        self.grounds = _GROUNDS[:1] if level == "demo" else _GROUNDS
        plain = {c: tuple(f"a {w} {g}" for w in _COLOURS[c] for g in self.grounds) for c in DEMO_BACKGROUNDS}
        if level == "demo":
            self.tables: dict[str, Table] = {
                "shape": _first(_SHAPES, DEMO_SHAPES),
                "colour": _first(_COLOURS, DEMO_COLOURS),
                "size": _first(_SIZES, DEMO_SIZES),
                "relation": _first(_RELATIONS, DIRECTIONS),
                "background": _first(plain, DEMO_BACKGROUNDS),
            }
        else:
            self.tables = {
                "shape": _SHAPES,
                "colour": _COLOURS,
                "size": _SIZES,
                "fill": _FILLS,
                "after": _AFTER,
                "count": _COUNTS,
                "relation": _RELATIONS,
                "background": plain | _BACKGROUNDS,
            }
        self._meanings = self._index()
        self._longest = max(map(len, self._meanings))

    def find(self, text: str) -> list[Found]:
        """Every wording in the text, longest first at each place, in reading order. Unknown words are passed over."""
        spans = [(m[0], m.start(), m.end()) for m in _TOKEN.finditer(text.lower())]
        words = tuple(s[0] for s in spans)
        found, i = [], 0
        while i < len(words):
            for length in range(min(self._longest, len(words) - i), 0, -1):
                meaning = self._meanings.get(words[i : i + length])
                if meaning is not None:
                    found.append(Found(meaning, spans[i][1], spans[i + length - 1][2]))
                    i += length
                    break
            else:
                i += 1
        return found

    def _index(self) -> dict[tuple[str, ...], Word]:
        index: dict[tuple[str, ...], Word] = {
            (".",): STOP,
            (";",): STOP,
            ("a",): ARTICLE,
            ("an",): ARTICLE,
            ("and",): AND,
        }
        colours = self.tables["colour"] | {c: _COLOURS[c] for c in DEMO_BACKGROUNDS}
        for value, wordings in colours.items():
            for wording in wordings:
                index[_split(wording)] = Word("colour", value)
                for ground in self.grounds:  # any colour can be claimed of a background, true or not
                    index[_split(f"{wording} {ground}")] = Word("background", value)
        for kind, table in self.tables.items():
            for value, wordings in table.items():
                for wording in wordings:
                    index.setdefault(_split(wording), Word(kind, value))
                    if kind == "shape":
                        index[_split(plural(wording))] = Word(kind, value, True)
        if self.level == "full":
            for noun in THINGS:
                index[(noun,)], index[(plural(noun),)] = Word("thing", ""), Word("thing", "", True)
        return index


def _split(wording: str) -> tuple[str, ...]:
    words = wording.split()
    return tuple(words[1:] if words[0] in ("a", "an", "the") and len(words) > 1 else words)


def _first(table: Table, values: Iterable[str]) -> Table:
    return {value: table[value][:1] for value in values}
