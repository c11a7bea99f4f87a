"""The gallery: for each decision a grid of cards with the image, both texts, and which of them survived."""

import base64
import io
from collections.abc import Sequence
from html import escape as _escape

import numpy as np
from PIL import Image

from capfilt.errors import DataError
from capfilt.report.record import Card
from capfilt.report.words import kind_name, reason, score_text, visible

LONGEST_TEXT = 400  # characters shown of one text

SECTIONS = {
    "kept": ("Kept", "The web text fits its image, so it stays."),
    "replaced": ("Replaced", "The web text does not fit; the synthetic text does and takes its place."),
    "dropped": ("Dropped", "Neither text fits, so the image leaves the set."),
    "failed": ("Failed", "These pairs could not be read; nothing was guessed in their place."),
}

_KEY = (
    '<p class="key muted"><span class="text stays"><ins>✓ green</ins></span> texts stay in the cleaned set, '
    '<span class="text goes"><del>✗ struck-through</del></span> ones go. The number and its gauge are the score '
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
        shown = "".join(_card(card, threshold) for card in mine)
        drawn.append(
            f'<details class="section" open><summary><span class="badge {section}">{name}</span> '
            f'<span class="muted">{meaning}</span></summary><div class="cards">{shown}</div></details>'
        )
    return "".join(drawn)


def _card(card: Card, threshold: float | None) -> str:
    kind = f'<span class="kind">{_shortened(kind_name(card.kind), 40)}</span>' if card.kind else ""
    meter = _meter(card.score_web, card.web_stays, threshold)
    texts = _text("web text", card.web, meter, card.web_stays, card.truth_web)
    if card.synthetic is not None or card.section != "failed":
        meter = _meter(card.score_synthetic, card.synthetic_stays, threshold)
        texts += _text("synthetic text", card.synthetic, meter, card.synthetic_stays, card.truth_synthetic)
    why = reason(card)
    return (
        f'<article class="card {card.section}"><div class="look">{_image(card.image)}{kind}</div>'
        f'<div class="say">{texts}<p class="why">{_shortened(why[:1].upper() + why[1:])}.</p></div></article>'
    )


def _text(name: str, text: str | None, meter: str, stays: bool, truth: tuple[int, int] | None) -> str:
    if text is None:
        return f'<p class="text none"><span class="tag">no {name}</span></p>'
    mark = "stays" if stays else "goes"
    facts = ""
    if truth is not None:
        facts = f'<span class="facts">{truth[0]} of {truth[1]} facts true</span>' if truth[1] else ""
        facts = facts or '<span class="facts">states no fact</span>'
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


def _meter(score: float | None, stays: bool, threshold: float | None) -> str:
    if score is None:
        return ""
    wide = 32 * min(1.0, max(0.0, score))
    return (
        '<span class="score"><svg class="meter" viewBox="0 0 32 6" aria-hidden="true">'
        f'<rect class="rail" width="32" height="6" rx="3"/><rect class="{"stays" if stays else "goes"}" '
        f'width="{wide:.1f}" height="6" rx="3"/></svg> {score_text(score, threshold)}</span>'
    )


def _image(image: np.ndarray | None) -> str:
    if image is None:
        return '<div class="noimage">no image</div>'
    source, (width, height) = data_uri(image)
    return f'<img src="{source}" width="{width}" height="{height}" alt="the image of this pair">'


def data_uri(image: np.ndarray) -> tuple[str, tuple[int, int]]:
    """(data URI of a PNG, (width, height)) of an (H, W, 3) uint8 image.

    Raises DataError for any other shape or dtype.
    """
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise DataError(
            f"report: a gallery image must be (H, W, 3) uint8, got {image.shape} {image.dtype}. "
            "Decode it to RGB first, or give None where there is none."
        )
    picture, buffer = Image.fromarray(image), io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    code = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f"data:image/png;base64,{code}", picture.size
