"""Rows as HTML: the image, both texts side by side with their scores, and what was decided. Every text is escaped."""

import base64
import math
from collections.abc import Sequence

from capfilt.report.clean.record import Gallery, Group, Sample
from capfilt.report.gallery import esc

LONGEST_TEXT = 300  # characters shown of one text
LOOKS = {"keep": "kept", "replace": "replaced", "drop": "dropped", "failed": "failed"}  # decision → class and word
UNKNOWN = "\u2013"


def galleries(found: Sequence[Gallery]) -> str:
    """Sections that open and close, the first of each decision open."""
    drawn, opened = "", set()
    for one in found:
        first = "" if one.decision in opened else " open"
        opened.add(one.decision)
        count = f"{len(one.rows)} of {one.total:,}" if one.total > len(one.rows) else f"{one.total:,}"
        drawn += (
            f'<details class="section"{first}><summary><span class="badge {LOOKS[one.decision]}">{esc(one.title)}'
            f'</span> <span class="muted">{esc(one.meaning)} <small>{count}</small></span></summary>'
            f'<div class="cards">{"".join(map(card, one.rows))}</div></details>'
        )
    return drawn


def card(row: Sample) -> str:
    """One row."""
    look = LOOKS[row.decision]
    texts = _text(row, "web text", row.web_text, row.score_web, row.itm_web, row.itc_web)
    if row.synthetic_text is not None or row.decision != "failed":
        texts += _text(
            row, "synthetic text", row.synthetic_text, row.score_synthetic, row.itm_synthetic, row.itc_synthetic
        )
    if row.text is not None and row.text not in (row.web_text, row.synthetic_text):
        texts += _text(row, "a person's text", row.text, None, None, None)
    return (
        f'<article class="card {look}"><div class="look">{picture(row)}</div><div class="say">'
        f'<div class="pair">{texts}</div><p class="why"><b class="word {look}">{look}</b> {shortened(row.reason)}</p>'
        f'<p class="where"><bdi>{shortened(row.key, 80)}</bdi></p></div></article>'
    )


def picture(row: Sample) -> str:
    """The row's small image as a data URI, or why there is none."""
    if row.image is None:
        return f'<div class="noimage">{shortened(row.missing, 60)}</div>'
    code = base64.b64encode(row.image).decode("ascii")
    return f'<img src="data:image/jpeg;base64,{code}" alt="the image of this row">'


def groups(found: Sequence[Group]) -> str:
    """Images that are the same, group by group."""
    drawn = ""
    for group in found:
        shown = "".join(
            f'<figure class="copy">{picture(row)}<figcaption><b class="word {LOOKS[row.decision]}">'
            f"{'stands for them' if first else LOOKS[row.decision]}</b> <bdi>{shortened(row.key, 48)}</bdi>"
            f"<span><bdi>{shortened(row.web_text or '', 90)}</bdi></span></figcaption></figure>"
            for first, row in ((place == 0, row) for place, row in enumerate(group.rows))
        )
        more = group.total - len(group.rows)
        drawn += f'<div class="same">{shown}{f"<p>and {more:,} more</p>" if more > 0 else ""}</div>'
    return f'<div class="groups">{drawn}</div>'


def shortened(text: str, longest: int = LONGEST_TEXT) -> str:
    """The text as safe HTML, cut where it is long."""
    if not text.strip():
        return '<span class="muted">(empty)</span>'
    if len(text) <= longest:
        return esc(text)
    return f'{esc(text[:longest])}… <span class="muted">({len(text):,} characters)</span>'


def number(value: float | None) -> str:
    """A score, cut and not rounded, as the reasons have it: 0.4996 must not read as 0.500."""
    return UNKNOWN if value is None else f"{math.floor(value * 1000 + 0.001) / 1000:.3f}"


def _text(row: Sample, name: str, text: str | None, score: float | None, itm: float | None, itc: float | None) -> str:
    if text is None:
        return f'<div class="text none"><p class="tag">no {name}</p></div>'
    stands = text == row.text or text in row.texts
    words = f"<bdi>{shortened(text)}</bdi>"
    body, sign = (f"<ins>{words}</ins>", "✓") if stands else (f"<del>{words}</del>", "✗")
    known = [(what, value) for what, value in (("ITM", itm), ("ITC", itc)) if value is not None]
    heads = " · ".join(f"{what}\u00a0{number(value)}" for what, value in known)
    scores = f'<span class="score">{_meter(score, stands)} {number(score)}</span>' if score is not None else ""
    return (
        f'<div class="text {"stays" if stands else "goes"}"><p class="tag"><b>{sign}</b> {name} {scores}</p>'
        f'<p class="words">{body}</p><p class="heads">{esc(heads)}</p></div>'
    )


def _meter(score: float, stands: bool) -> str:
    wide = 32 * min(1.0, max(0.0, score))
    return (
        '<svg class="meter" viewBox="0 0 32 6" aria-hidden="true"><rect class="rail" width="32" height="6" rx="3"/>'
        f'<rect class="{"stays" if stands else "goes"}" width="{wide:.1f}" height="6" rx="3"/></svg>'
    )
