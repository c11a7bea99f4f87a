"""The gallery: for each decision a grid of cards with the image, both texts, and which of them survived."""

import base64
import io
from collections.abc import Sequence
from html import escape as _escape

import numpy as np
from PIL import Image

from capfilt.errors import DataError
from capfilt.report.record import Card
from capfilt.report.words import reason, visible

LONGEST_PX = 320  # larger images are reduced: the page carries every picture inside itself
LONGEST_TEXT = 400  # characters shown of one text
OPEN_CARDS = 12  # cards of one section shown before "show more"

SECTIONS = {
    "kept": ("Kept", "The web text fits its image, so it stays."),
    "replaced": ("Replaced", "The web text does not fit; the synthetic text does and takes its place."),
    "dropped": ("Dropped", "Neither text fits, so the image leaves the set."),
    "failed": ("Failed", "These pairs could not be read; nothing was guessed in their place."),
}

_KEY = (
    '<p class="key muted"><span class="text stays"><ins>✓ green</ins></span> texts stay in the cleaned set, '
    '<span class="text goes"><del>✗ struck-through</del></span> ones go. The bar and its number are the score '
    "that the filter gave, from 0 to 1.</p>"
)


def esc(value: object) -> str:
    """Any value as safe HTML text, hidden signs spelled out; also safe inside a quoted attribute."""
    return _escape(visible(str(value)), quote=True)


def gallery(cards: Sequence[Card], threshold: float | None) -> str:
    """All sections that have cards, as HTML; empty without cards."""
    drawn = [_KEY] if cards else []
    for section, (name, meaning) in SECTIONS.items():
        mine = [card for card in cards if card.section == section]
        if not mine:
            continue
        first = "".join(_card(card, threshold) for card in mine[:OPEN_CARDS])
        rest = "".join(_card(card, threshold) for card in mine[OPEN_CARDS:])
        more = f"<summary>Show {len(mine) - OPEN_CARDS:,} more</summary>"
        more = f'<details class="more">{more}<div class="cards">{rest}</div></details>' if rest else ""
        drawn.append(
            f'<details class="section" open><summary><span class="badge {section}">{name}</span> '
            f'<span class="muted">{meaning}</span></summary><div class="cards">{first}</div>{more}</details>'
        )
    return "".join(drawn)


def _card(card: Card, threshold: float | None) -> str:
    kind = f'<span class="kind">{_shortened(card.kind, 40)}</span>' if card.kind else ""
    texts = _text("web text", card.web, card.score_web, card.web_stays, card.truth_web)
    if card.synthetic is not None or card.section != "failed":
        texts += _text(
            "synthetic text", card.synthetic, card.score_synthetic, card.synthetic_stays, card.truth_synthetic
        )
    why = reason(card, threshold)
    return (
        f'<article class="card {card.section}"><div class="look">{_image(card.image)}{kind}</div>'
        f'<div class="say">{texts}<p class="why">{_shortened(why[:1].upper() + why[1:])}.</p></div></article>'
    )


def _text(name: str, text: str | None, score: float | None, stays: bool, truth: tuple[int, int] | None) -> str:
    if text is None:
        return f'<p class="text none"><span class="tag">no {name}</span></p>'
    mark = "stays" if stays else "goes"
    facts = ""
    if truth is not None:
        facts = f'<span class="facts">{truth[0]} of {truth[1]} facts true</span>' if truth[1] else ""
        facts = facts or '<span class="facts">states no fact</span>'
    meter = "" if score is None else f'<span class="score">{_meter(score, mark)} {score:.2f}</span>'
    words = _shortened(text)
    body = f"<ins><bdi>{words}</bdi></ins>" if stays else f"<del><bdi>{words}</bdi></del>"
    sign = '<b title="stays">✓</b>' if stays else '<b title="goes">✗</b>'
    return (
        f'<div class="text {mark}"><p class="tag">{sign} <span>{name}</span> {meter}{facts}</p>'
        f'<p class="words">{body}</p></div>'
    )


def _shortened(text: str, longest: int = LONGEST_TEXT) -> str:
    if not text.strip():
        return '<span class="muted">(empty)</span>'
    if len(text) <= longest:
        return esc(text)
    return f'{esc(text[:longest])}… <span class="muted">({len(text):,} characters)</span>'


def _meter(score: float, mark: str) -> str:
    wide = 32 * min(1.0, max(0.0, score))
    return (
        '<svg class="meter" viewBox="0 0 32 6" aria-hidden="true"><rect class="rail" width="32" height="6" rx="3"/>'
        f'<rect class="{mark}" width="{wide:.1f}" height="6" rx="3"/></svg>'
    )


def _image(image: np.ndarray | None) -> str:
    if image is None:
        return '<div class="noimage">no image</div>'
    source, (width, height) = data_uri(image)
    return f'<img src="{source}" width="{width}" height="{height}" alt="the image of this pair">'


def data_uri(image: np.ndarray) -> tuple[str, tuple[int, int]]:
    """(data URI, (width, height)) of an (H, W, 3) uint8 image: PNG where small, else JPEG of at most 320 px.

    Raises DataError for any other shape or dtype.
    """
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise DataError(
            f"report: a gallery image must be (H, W, 3) uint8, got {image.shape} {image.dtype}. "
            "Decode it to RGB first, or give None where there is none."
        )
    picture = Image.fromarray(image)
    small = max(picture.size) <= 96
    if max(picture.size) > LONGEST_PX:
        picture.thumbnail((LONGEST_PX, LONGEST_PX), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    if small:
        picture.save(buffer, format="PNG", optimize=True)
    else:
        picture.save(buffer, format="JPEG", quality=85)
    code = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f"data:image/{'png' if small else 'jpeg'};base64,{code}", picture.size
