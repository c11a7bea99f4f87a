"""What the web does to captions: one attribute wrong, padding around a true text, or no caption at all."""

import random

from capfilt.data.world_judge import judge
from capfilt.data.world_scene import PAIRWISE, PLACES, Scene
from capfilt.data.world_words import Found, Lexicon, articled, plural

_ATTRIBUTES = ("shape", "colour", "size", "fill", "count", "relation", "background")

# None of these words may state a fact in the world's language; a test holds them to it.
_PADDINGS = (
    "stock photo - {t} | free download",
    "{t} - royalty free stock image #{n}",
    "download {t} (hd, {n} views)",
    "{t} | pinterest",
    "buy {t} online - best price - free shipping",
    "{t} - clipart library, item {n}",
    "wallpaper: {t} [1920x1080]",
    "{t} // posted by {u} - {n} likes",
    "new! {t} - click to enlarge",
    "{t} | print by {u} | etsy",
)
_JUNK = (
    "img_{y}{m:02d}{d:02d}_{n}.jpg",
    "dsc_{n}.jpg",
    "dscn{n}.nef",
    "screenshot {y}-{m:02d}-{d:02d} at {h}.{s}.png",
    "final_{u}_v{d}_{n}.psd",
    "untitled {n}",
    "{c} - iso {i}, 1/{e}s, f/{f}",
    "shot by {u} using {c}",
    "buy now - free shipping - sku {n}",
    "sale! {p}% off all {g}, use code {u}{p}",
    "{g} from ${p}.99 - add to cart",
    "https://www.{u}{g}.com/item/{n}?ref=home",
    "http://cdn.{u}.net/{y}/{m:02d}/{n}.html",
    "posted {d}/{m}/{y} by {u} - {p} comments",
    "copyright {y} {u} studio, all rights reserved",
    "{month} {d}, {y} - {u}'s blog - page {p}",
    "{g} review {y}: top {d} picks",
    "thank you for visiting {u}.com - subscribe for more {g}",
)
_USERS = (
    "alex",
    "maria",
    "dexter",
    "photoguy",
    "kim_88",
    "nina",
    "lucas",
    "pixelfan",
    "travelbug",
    "oldtown",
    "jenny",
    "markus",
    "vera",
)
_CAMERAS = ("canon eos 70d", "nikon d3200", "sony a6000", "fuji x100", "olympus e-m10", "pentax k-50", "iphone 7")
_GOODS = (
    "shoes",
    "posters",
    "mugs",
    "curtain",
    "tshirts",
    "toys",
    "stickers",
    "fabric",
    "lamps",
    "jewelry",
    "cushions",
    "magnets",
)
_MONTHS = ("january", "february", "april", "may", "june", "july", "august", "october", "november", "december")


def padded(text: str, rnd: random.Random) -> str:
    """The caption inside a shop's or a photo site's words."""
    return rnd.choice(_PADDINGS).format(t=text, n=rnd.randint(100, 99_999), u=rnd.choice(_USERS))


def junk(rnd: random.Random) -> str:
    """Text that came with a picture and says nothing of it: file names, cameras, links, dates, shop talk."""
    return rnd.choice(_JUNK).format(
        **{"n": rnd.randint(100, 9_999_999), "p": rnd.randint(5, 95), "y": rnd.randint(2003, 2021)},
        **{"m": rnd.randint(1, 12), "d": rnd.randint(1, 28), "h": rnd.randint(0, 23), "s": rnd.randint(10, 59)},
        **{"i": rnd.choice((100, 200, 400, 800, 1600)), "e": rnd.choice((30, 60, 125, 250)), "f": rnd.randint(2, 16)},
        **{"u": rnd.choice(_USERS), "c": rnd.choice(_CAMERAS), "g": rnd.choice(_GOODS), "month": rnd.choice(_MONTHS)},
    )


def one_wrong(lexicon: Lexicon, scene: Scene, text: str, rnd: random.Random) -> str | None:
    """The text with one attribute word exchanged so that it no longer holds; None where no exchange does that."""
    found = [f for f in lexicon.find(text) if f.word.kind in _ATTRIBUTES]
    rnd.shuffle(found)
    for spot in found:
        values = _others(lexicon, spot)
        rnd.shuffle(values)
        for value in values[:3]:
            changed = _exchanged(lexicon, text, spot, value, rnd)
            if judge(lexicon, scene, changed).truth < 1.0:
                return changed
    return None


def _others(lexicon: Lexicon, spot: Found) -> list[str]:
    """Values that could stand in this place without breaking the sentence."""
    kind, value = spot.word.kind, spot.word.value
    if kind == "relation":
        family = next((f for f in (PLACES, PAIRWISE) if value in f), ())
        values = [v for v in lexicon.tables[kind] if v in family]
    elif kind == "count":
        values = [] if value == "1" else ["2", "3", "4"]
    else:
        values = list(lexicon.tables[kind])
    return [v for v in values if v != value]


def _exchanged(lexicon: Lexicon, text: str, spot: Found, value: str, rnd: random.Random) -> str:
    start, old = spot.start, text[spot.start : spot.end]
    wordings = lexicon.tables[spot.word.kind][value]
    if spot.word.kind == "count":
        wordings = tuple(w for w in wordings if w.endswith(" of") == old.endswith(" of"))
    new = rnd.choice(wordings)
    if spot.word.plural:
        new = plural(new)
    if spot.word.kind == "background":  # its wording brings its own article
        before = text[:start].rstrip()
        head, _, last = before.rpartition(" ")
        if last in ("a", "an", "the"):
            start = len(head) + 1 if head else 0
    return articled(text[:start] + new + text[spot.end :])
