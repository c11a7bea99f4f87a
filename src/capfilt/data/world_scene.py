"""What is in a drawn scene, where it stands, and which spatial relations hold. Pure geometry: no words, no pixels.

Boxes are (left, top, right, bottom) in px, right and bottom exclusive; y grows downwards.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from itertools import combinations
from typing import Literal, NamedTuple

Level = Literal["demo", "full"]
Rgb = tuple[int, int, int]
Look = tuple[str, str, str, str, int]  # shape, colour, size, fill, count
Box = tuple[int, int, int, int]

COLOURS: dict[str, Rgb] = {
    "red": (220, 30, 35),
    "orange": (250, 140, 20),
    "yellow": (250, 222, 40),
    "green": (20, 130, 50),
    "blue": (30, 75, 230),
    "purple": (130, 40, 190),
    "pink": (252, 150, 205),
    "brown": (125, 75, 35),
    "cyan": (40, 205, 235),
    "lime": (155, 235, 45),
    "black": (25, 25, 28),
    "white": (246, 246, 246),
    "gray": (135, 135, 138),
    "navy": (20, 25, 105),
    "teal": (0, 128, 128),
    "maroon": (120, 10, 45),
    "magenta": (230, 20, 170),
    "beige": (226, 208, 176),
}
# The tones a background is painted with: one for plain ones, two for textures. Objects must stand out from each.
BACKGROUNDS: dict[str, tuple[Rgb, ...]] = {
    "white": ((246, 246, 246),),
    "black": ((25, 25, 28),),
    "gray": ((135, 135, 138),),
    "beige": ((226, 208, 176),),
    "bricks": ((170, 85, 65), (200, 190, 180)),
    "wood": ((190, 145, 95), (150, 105, 65)),
    "grass": ((95, 170, 80), (60, 135, 55)),
    "sky": ((150, 200, 240), (225, 240, 250)),
    "night": ((15, 18, 50), (240, 240, 200)),
    "water": ((45, 110, 170), (100, 165, 205)),
    "sand": ((230, 205, 140), (205, 175, 110)),
    "checks": ((240, 235, 225), (200, 160, 160)),
    "stripes": ((235, 225, 240), (190, 185, 220)),
    "graph": ((245, 250, 250), (160, 200, 210)),
    "polka": ((250, 235, 240), (225, 150, 175)),
    "sunset": ((250, 160, 90), (110, 70, 130)),
}
DEMO_SHAPES = ("circle", "square", "triangle", "star", "cross", "ring", "heart", "moon")
SHAPES = (
    *DEMO_SHAPES,
    *("diamond", "oval", "rectangle", "hexagon", "arrow", "semicircle", "drop", "cloud"),
    *("house", "tree", "flower", "bolt", "mushroom", "crown"),
)
ROOMY = ("circle", "square", "heart", "hexagon", "cloud", "house")  # a small thing fits inside
BULKY = (*ROOMY, "diamond", "flower", "star")  # solid in the middle, so that a thing over it covers some of it
DEMO_COLOURS = tuple(COLOURS)[:10]
DEMO_BACKGROUNDS = tuple(BACKGROUNDS)[:4]
DEMO_SIZES = {"small": 0.27, "large": 0.44}  # side as a share of the picture's side
SIZES = {"small": 0.17, "medium": 0.27, "large": 0.40}
FILLS = ("solid", "outlined", "striped", "dotted", "checkered", "gradient", "speckled")
DIRECTIONS = ("left", "right", "above", "below")
PAIRWISE = (*DIRECTIONS, "near", "far", "inside", "around", "overlapping", "front", "behind")
PLACES = ("top left", "top right", "bottom left", "bottom right", "centre")
_APART = 95.0  # least RGB distance between things that must be told apart


@dataclass(frozen=True)
class Thing:
    """One noun phrase's worth of scene: `count` equal objects.

    side:  px, the square each object is drawn in.
    spots: (left, top) of each object's square in px.
    """

    shape: str
    colour: str
    size: str
    fill: str
    side: int
    spots: tuple[tuple[int, int], ...]

    @property
    def count(self) -> int:
        return len(self.spots)

    @cached_property
    def box(self) -> Box:
        """The box around all objects."""
        xs, ys = zip(*self.spots, strict=True)
        return min(xs), min(ys), max(xs) + self.side, max(ys) + self.side


@dataclass(frozen=True)
class Scene:
    """Everything a picture shows. Later things are drawn over earlier ones.

    px:     side of the picture.
    links:  the spatial facts worth stating: indices of the things each one ties together (one index: its place).
    layout: how the things stand, jitter aside; with the attributes and the background it makes `key`.
    """

    px: int
    things: tuple[Thing, ...]
    background: str
    links: tuple[tuple[int, ...], ...]
    layout: str

    @cached_property
    def key(self) -> str:
        """The content without the jitter: equal for two scenes that deserve the same full caption."""
        looks = ";".join(f"{t.count} {t.size} {t.fill} {t.colour} {t.shape}" for t in self.things)
        return f"{looks};{self.background};{self.layout}"


def draw_lots(level: Level, px: int, rnd: random.Random) -> Scene:
    """One random scene of the level. Objects fit the picture and stand out from the background."""
    if level == "demo":
        return _demo(px, rnd)
    while True:
        make = rnd.choices((_alone, _pair, _stacked, _triple, _corners), (30, 34, 18, 12, 6))[0]
        scene = make(px, rnd)
        if scene is not None:
            return scene


def holds(relation: str, scene: Scene, ends: Sequence[int]) -> bool:
    """Whether things `ends` stand in `relation`: one end for a place, two for a pair, three for "between"."""
    if len(set(ends)) < len(ends):
        return False
    boxes = [scene.things[i].box for i in ends]
    if relation == "between":
        return len(boxes) == 3 and _between(boxes, scene.px)
    if relation in PLACES:
        return len(boxes) == 1 and _place(boxes[0], scene.px) == relation
    if relation in PAIRWISE and len(boxes) == 2:
        over = ends[0] > ends[1]  # drawn later, so on top
        return relation in _relations(boxes[0], boxes[1], over, scene.px)
    return False


def relations(scene: Scene, first: int, second: int) -> tuple[str, ...]:
    """Every pairwise relation in which thing `first` stands to thing `second`."""
    things = scene.things
    return _relations(things[first].box, things[second].box, first > second, scene.px)


def place(scene: Scene, index: int) -> str | None:
    """The corner, or the centre, in which a thing stands; None elsewhere."""
    return _place(scene.things[index].box, scene.px)


@lru_cache(maxsize=4096)
def _relations(a: Box, b: Box, over: bool, px: int) -> tuple[str, ...]:
    apart_x = max(a[0], b[0]) - min(a[2], b[2])  # negative: they share columns
    apart_y = max(a[1], b[1]) - min(a[3], b[3])
    dx, dy = (b[0] + b[2] - a[0] - a[2]) / 2, (b[1] + b[3] - a[1] - a[3]) / 2
    if apart_x < 0 and apart_y < 0:
        if _within(a, b):
            return ("inside",)
        if _within(b, a):
            return ("around",)
        return ("overlapping", "front" if over else "behind")
    found = []
    if apart_x >= 0 and abs(dx) >= 0.75 * abs(dy):
        found.append("left" if dx > 0 else "right")
    if apart_y >= 0 and abs(dy) >= 0.75 * abs(dx):
        found.append("above" if dy > 0 else "below")
    gap = math.hypot(max(apart_x, 0), max(apart_y, 0))
    if gap <= 0.14 * px:
        found.append("near")
    elif gap >= 0.34 * px:
        found.append("far")
    return tuple(found)


def _within(a: Box, b: Box) -> bool:
    return a[0] >= b[0] and a[1] >= b[1] and a[2] <= b[2] and a[3] <= b[3]


def _place(box: Box, px: int) -> str | None:
    x, y = (box[0] + box[2]) / 2 / px, (box[1] + box[3]) / 2 / px
    if max(abs(x - 0.5), abs(y - 0.5)) <= 0.08:
        return "centre"
    if min(abs(x - 0.5), abs(y - 0.5)) >= 0.2:
        return f"{'top' if y < 0.5 else 'bottom'} {'left' if x < 0.5 else 'right'}"
    return None


def _between(boxes: Sequence[Box], px: int) -> bool:
    (x, y), (x0, y0), (x1, y1) = (((b[0] + b[2]) / 2, (b[1] + b[3]) / 2) for b in boxes)
    length = math.hypot(x1 - x0, y1 - y0)
    if length == 0:
        return False
    along = ((x - x0) * (x1 - x0) + (y - y0) * (y1 - y0)) / length**2
    aside = abs((x - x0) * (y1 - y0) - (y - y0) * (x1 - x0)) / length
    return 0.2 <= along <= 0.8 and aside <= 0.12 * px


def _demo(px: int, rnd: random.Random) -> Scene:
    """Two things side by side or one over the other, ordered by their looks so that a picture has one description."""

    def look() -> Look:
        return rnd.choice(DEMO_SHAPES), rnd.choice(DEMO_COLOURS), rnd.choice(("small", "large")), "solid", 1

    first, second = look(), look()
    while first == second:
        second = look()
    looks = sorted((first, second))
    blocks = [_block(round(DEMO_SIZES[look[2]] * px), 1, "row") for look in looks]
    relation = rnd.choice(DIRECTIONS)
    placed = _side_by_side(px, blocks, relation, rnd)
    assert placed is not None, "two large things always fit"
    things = tuple(_thing(look, b, at) for look, b, at in zip(looks, blocks, placed, strict=True))
    return Scene(px, things, rnd.choice(DEMO_BACKGROUNDS), ((0, 1),), relation)


class Block(NamedTuple):
    """Equal squares of `side` px at `offsets` inside a box of width × height px."""

    side: int
    offsets: tuple[tuple[int, int], ...]
    width: int
    height: int

    def extent(self, flat: bool) -> tuple[int, int]:
        """(width, height) where the line runs flat, else (height, width)."""
        return (self.width, self.height) if flat else (self.height, self.width)


def _block(side: int, count: int, arrangement: str) -> Block:
    """`count` equal objects as a row, a column or a square."""
    step = side + max(2, side // 8)
    columns = {"row": count, "column": 1, "square": 2}[arrangement]
    offsets = tuple((i % columns * step, i // columns * step) for i in range(count))
    return Block(side, offsets, max(x for x, _ in offsets) + side, max(y for _, y in offsets) + side)


def _thing(look: Look, block: Block, at: tuple[int, int]) -> Thing:
    shape, colour, size, fill, _ = look
    return Thing(shape, colour, size, fill, block.side, tuple((at[0] + x, at[1] + y) for x, y in block.offsets))


def _side_by_side(px: int, blocks: Sequence[Block], relation: str, rnd: random.Random) -> list[tuple[int, int]] | None:
    """Where the blocks go: the first stands in `relation` to the second, and so on; None when they do not fit.

    Along the axis the gaps are random but at least 2 px; across it the centres differ by at most 6% of the picture.
    """
    flat = relation in ("left", "right")
    extents = [block.extent(flat) for block in blocks]
    order = list(range(len(blocks)))
    if relation in ("right", "below"):
        order.reverse()
    free = px - 2 - sum(along for along, _ in extents) - 2 * (len(blocks) - 1)
    widest = max(across for _, across in extents)
    if free < 0 or widest > px - 2:
        return None
    slack = sorted(rnd.randint(0, free) for _ in blocks)
    tilt = min(round(0.06 * px), px - 2 - widest)
    base = rnd.randint(1, px - 1 - widest - tilt)
    placed = [(0, 0)] * len(blocks)
    at = 1
    for more, i in zip(slack, order, strict=True):
        along, across = extents[i]
        aside = base + (widest - across) // 2 + rnd.randint(0, tilt)
        placed[i] = (at + more, aside) if flat else (aside, at + more)
        at += along + 2
    return placed


def _apart(a: Rgb, b: Rgb) -> bool:
    return math.dist(a, b) >= _APART


@cache
def _visible_on(background: str) -> tuple[str, ...]:
    """Colours that stand out from every tone of the background."""
    return tuple(c for c, rgb in COLOURS.items() if all(_apart(rgb, tone) for tone in BACKGROUNDS[background]))


def _look(rnd: random.Random, background: str, count: int = 1, sizes: Sequence[str] = tuple(SIZES)) -> Look:
    fill = rnd.choice(FILLS[1:]) if rnd.random() < 0.55 else "solid"
    return rnd.choice(SHAPES), rnd.choice(_visible_on(background)), rnd.choice(sizes), fill, count


def _looks(rnd: random.Random, background: str, counts: Sequence[int]) -> list[Look]:
    """Different shapes throughout, so that no count is ever in doubt."""
    while True:
        looks = [_look(rnd, background, count) for count in counts]
        if len({look[0] for look in looks}) == len(looks):
            return looks


def _blocks(px: int, looks: Sequence[Look], rnd: random.Random) -> list[Block]:
    kinds = ("row", "column", "square")
    return [_block(round(SIZES[k[2]] * px), k[4], rnd.choice(kinds[: 3 if k[4] > 2 else 2])) for k in looks]


def _alone(px: int, rnd: random.Random) -> Scene | None:
    """One thing, or two to four equal ones, anywhere; often in a corner or in the centre."""
    background = rnd.choice(tuple(BACKGROUNDS))
    look = _look(rnd, background, rnd.choice((1, 1, 1, 2, 3, 4)))
    block = _blocks(px, [look], rnd)[0]
    room_x, room_y = px - 2 - block.width, px - 2 - block.height
    if min(room_x, room_y) < 0:
        return None
    x, y = rnd.randint(0, room_x), rnd.randint(0, room_y)
    where = rnd.choice(("any", "corner", "centre"))
    jitter = round(0.05 * px)
    if where == "corner":
        x, y = (min(rnd.randint(0, jitter), room) for room in (room_x, room_y))
        x, y = rnd.choice((x, room_x - x)), rnd.choice((y, room_y - y))
    elif where == "centre":
        x, y = (min(max(room // 2 + rnd.randint(-jitter, jitter), 0), room) for room in (room_x, room_y))
    thing = _thing(look, block, (1 + x, 1 + y))
    found = _place(thing.box, px)
    return Scene(px, (thing,), background, ((0,),) if found else (), found or "anywhere")


def _pair(px: int, rnd: random.Random) -> Scene | None:
    """Two things beside or above one another; sometimes one of them is several objects."""
    background = rnd.choice(tuple(BACKGROUNDS))
    counts = rnd.choice(((1, 1), (1, 1), (1, 2), (1, 3)))
    looks = sorted(_looks(rnd, background, counts))
    blocks, relation = _blocks(px, looks, rnd), rnd.choice(DIRECTIONS)
    placed = _side_by_side(px, blocks, relation, rnd)
    if placed is None:
        return None
    things = tuple(_thing(look, b, at) for look, b, at in zip(looks, blocks, placed, strict=True))
    scene = Scene(px, things, background, ((0, 1),), relation)
    return scene if relation in relations(scene, 0, 1) else None


def _stacked(px: int, rnd: random.Random) -> Scene | None:
    """A small thing inside a large one, or a thing that partly covers another."""
    background = rnd.choice(tuple(BACKGROUNDS))
    under, over = _looks(rnd, background, (1, 1))
    if not _apart(COLOURS[under[1]], COLOURS[over[1]]):
        return None
    inside = rnd.random() < 0.5
    if inside:
        under = (rnd.choice(ROOMY), under[1], "large", rnd.choice(("solid", "outlined")), 1)
        over = (over[0], over[1], "small", "solid", 1)
    else:
        under = (rnd.choice(BULKY), under[1], "large", *under[3:])
        over = (over[0], over[1], "medium", *over[3:])
    if under[0] == over[0]:
        return None
    blocks = _blocks(px, (under, over), rnd)
    big, little = blocks[0].side, blocks[1].side
    reach = 0 if inside else round(0.36 * big)  # how far the upper one's centre is from the lower one's
    x, y = (rnd.randint(1 + little, px - 1 - big - little) for _ in "xy")
    middle = (big - little) // 2
    drop = round(0.08 * big) if inside and under[0] == "house" else 0  # below the roof
    shift = (rnd.choice((-reach, reach)), rnd.choice((-reach, reach)))
    at = (x + middle + shift[0], y + middle + shift[1] + drop)
    things = (_thing(under, blocks[0], (x, y)), _thing(over, blocks[1], at))
    return Scene(px, things, background, ((0, 1),), "around" if inside else "behind")


def _triple(px: int, rnd: random.Random) -> Scene | None:
    """Three things in a line, first to last from the left or from the top."""
    background = rnd.choice(tuple(BACKGROUNDS))
    looks = _looks(rnd, background, (1, 1, 1))
    blocks, relation = _blocks(px, looks, rnd), rnd.choice(("left", "above"))
    placed = _side_by_side(px, blocks, relation, rnd)
    if placed is None:
        return None
    things = tuple(_thing(look, b, at) for look, b, at in zip(looks, blocks, placed, strict=True))
    scene = Scene(px, things, background, ((0, 1), (1, 2)), relation)
    sound = holds("between", scene, (1, 0, 2)) and all(relation in relations(scene, *link) for link in scene.links)
    return scene if sound else None


def _corners(px: int, rnd: random.Random) -> Scene | None:
    """Four things, one a corner."""
    background = rnd.choice(tuple(BACKGROUNDS))
    looks = _looks(rnd, background, (1, 1, 1, 1))
    blocks = _blocks(px, looks, rnd)
    jitter = round(0.03 * px)
    things = []
    for i, (look, block) in enumerate(zip(looks, blocks, strict=True)):
        dx, dy = rnd.randint(1, 1 + jitter), rnd.randint(1, 1 + jitter)
        at = (px - block.side - dx if i % 2 else dx, px - block.side - dy if i // 2 else dy)
        things.append(_thing(look, block, at))
    scene = Scene(px, tuple(things), background, ((0,), (1,), (2,), (3,)), "corners")
    named = [place(scene, i) for i in range(4)] == list(PLACES[:4])
    clear = all(
        not {"overlapping", "inside", "around"} & set(relations(scene, a, b)) for a, b in combinations(range(4), 2)
    )
    return scene if named and clear else None
