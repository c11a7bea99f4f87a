"""Two primitives, a palette, and two ways to put them on paper: SVG text and PNG pixels.

Coordinates are logical pixels, x to the right, y down. Colours are named by role, so one drawing serves light and dark.
"""

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from xml.sax.saxutils import escape

from PIL import Image, ImageDraw, ImageFont

from capfilt.files import atomic
from capfilt.report.words import visible

Point = tuple[float, float]
Anchor = Literal["start", "middle", "end"]

# Series colours after Okabe and Ito (2008), told apart with any colour vision; the dark set is lifted for contrast.
PALETTE: dict[str, tuple[str, str]] = {
    "paper": ("#ffffff", "#161b22"),
    "ink": ("#1c2430", "#e6edf3"),
    "muted": ("#5b6675", "#9aa7b5"),
    "grid": ("#e3e7ec", "#2a323d"),
    "soft": ("#f3f5f8", "#1f2630"),
    "s0": ("#0072b2", "#56a8e0"),
    "s1": ("#d55e00", "#f08a4b"),
    "s2": ("#009e73", "#35c79b"),
    "s3": ("#b8578f", "#dd8fbd"),
    "s4": ("#b07d00", "#e6b422"),
    "s5": ("#3f8fc4", "#8fd0f5"),
    "s6": ("#5a5f9e", "#a3a8ec"),
    "s7": ("#6b6b6b", "#b5b5b5"),
    "kept": ("#00805c", "#35c79b"),
    "replaced": ("#0072b2", "#56a8e0"),
    "dropped": ("#d55e00", "#f08a4b"),
    "failed": ("#7a828c", "#8b949e"),
}
SERIES = 8
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


@dataclass(frozen=True)
class Path2D:
    """A line or a filled outline.

    points: at least two. stroke, fill: roles of PALETTE. opacity: of the fill, 0 to 1.
    closed: joins the last point to the first. note: shown by browsers when the pointer rests on it.
    """

    points: Sequence[Point]
    stroke: str = ""
    fill: str = ""
    width: float = 1.0
    opacity: float = 1.0
    dashed: bool = False
    closed: bool = False
    note: str = ""


@dataclass(frozen=True)
class Box:
    """A rectangle with rounded corners: corner (x, y), size (w, h)."""

    x: float
    y: float
    w: float
    h: float
    fill: str = ""
    stroke: str = ""
    radius: float = 0.0
    opacity: float = 1.0
    note: str = ""


@dataclass(frozen=True)
class Label:
    """Text whose middle line is at y; turned reads from bottom to top around (x, y)."""

    x: float
    y: float
    text: str
    size: float = 12.0
    role: str = "ink"
    anchor: Anchor = "start"
    bold: bool = False
    turned: bool = False


Shape = Path2D | Box | Label


def style_sheet() -> str:
    """CSS that gives every role its light and its dark colour, as variables --cf-* and classes f-*, k-*."""
    light = "".join(f"--cf-{role}:{pair[0]};" for role, pair in PALETTE.items())
    dark = "".join(f"--cf-{role}:{pair[1]};" for role, pair in PALETTE.items())
    rules = "".join(
        f".f-{role}{{fill:var(--cf-{role},{pair[0]})}}.k-{role}{{stroke:var(--cf-{role},{pair[0]})}}"
        for role, pair in PALETTE.items()
    )
    return f":root{{color-scheme:light dark;{light}}}@media (prefers-color-scheme:dark){{:root{{{dark}}}}}{rules}"


def svg(shapes: Sequence[Shape], width: float, height: float, title: str, standalone: bool = True) -> str:
    """The drawing as SVG. `standalone` adds the XML namespace and the colours; inside a page those come from it."""
    head = f'<svg class="drawing" viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{_attribute(title)}"'
    if standalone:
        head += f' xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="{height:g}"'
    style = f"<style>{style_sheet()}</style>" if standalone else ""
    body = "".join(_svg_shape(shape) for shape in shapes)
    return f'{head} font-family="{_attribute(FONT)}">{style}<title>{escape(visible(title))}</title>{body}</svg>'


def _svg_shape(shape: Shape) -> str:
    if isinstance(shape, Label):
        place = f'x="{shape.x:.2f}" y="{shape.y:.2f}"'
        if shape.turned:
            place += f' transform="rotate(-90 {shape.x:.2f} {shape.y:.2f})"'
        weight = ' font-weight="600"' if shape.bold else ""
        return (
            f'<text {place} dy=".35em" font-size="{shape.size:g}" text-anchor="{shape.anchor}"{weight}'
            f"{_svg_paint('fill', 'f', shape.role)}>{escape(visible(shape.text))}</text>"
        )
    paint = _svg_paint("fill", "f", shape.fill, _svg_class("k", shape.stroke)) if shape.fill else ' fill="none"'
    if shape.stroke:
        paint += f' stroke="{PALETTE[shape.stroke][0]}"'
        paint += "" if shape.fill else f' class="{_svg_class("k", shape.stroke)}"'
    if shape.fill and shape.opacity < 1:
        paint += f' fill-opacity="{shape.opacity:g}"'
    note = f"<title>{escape(visible(shape.note))}</title>" if shape.note else ""
    if isinstance(shape, Box):
        corner = f' rx="{shape.radius:g}"' if shape.radius else ""
        place = f'x="{shape.x:.2f}" y="{shape.y:.2f}" width="{shape.w:.2f}" height="{shape.h:.2f}"'
        return f"<rect {place}{corner}{paint}>{note}</rect>"
    d = "M" + "L".join(f"{x:.2f} {y:.2f}" for x, y in shape.points) + ("Z" if shape.closed else "")
    dash = ' stroke-dasharray="5 4"' if shape.dashed else ""
    return f'<path d="{d}" stroke-width="{shape.width:g}" stroke-linejoin="round"{dash}{paint}>{note}</path>'


def _svg_class(prefix: str, role: str) -> str:
    return f"{prefix}-{role}" if role else ""


def _svg_paint(name: str, prefix: str, role: str, more: str = "") -> str:
    """The class that follows the theme, and a plain attribute for viewers that know no CSS."""
    return f' {name}="{PALETTE[role][0]}" class="{f"{prefix}-{role} {more}".strip()}"'


def _attribute(text: str) -> str:
    return escape(visible(text), {'"': "&quot;", "'": "&#39;"})


def png(shapes: Sequence[Shape], width: float, height: float, path: Path | str) -> None:
    """The drawing as a PNG in the light colours, two pixels a logical pixel, written atomically."""
    fine = 4  # drawn at four, reduced to two: PIL's lines have no smoothing of their own
    page = Image.new("RGB", (round(width * fine), round(height * fine)), PALETTE["paper"][0])
    draw = ImageDraw.Draw(page, "RGBA")
    for shape in shapes:
        _png_shape(page, draw, shape, fine)
    page = page.resize((round(width * 2), round(height * 2)), Image.Resampling.LANCZOS)
    atomic(path, lambda target: page.save(target, format="PNG", optimize=True))


def _png_shape(page: Image.Image, draw: ImageDraw.ImageDraw, shape: Shape, fine: int) -> None:
    if isinstance(shape, Label):
        _png_label(page, shape, fine)
        return
    fill = _rgba(shape.fill, shape.opacity)
    stroke = _rgba(shape.stroke, 1.0)
    if isinstance(shape, Box):
        corners = (shape.x * fine, shape.y * fine, (shape.x + shape.w) * fine, (shape.y + shape.h) * fine)
        if shape.w > 0 and shape.h > 0:
            draw.rounded_rectangle(corners, shape.radius * fine, fill, stroke, fine if stroke else 0)
        return
    points = [(x * fine, y * fine) for x, y in shape.points]
    if fill and len(points) > 2:
        draw.polygon(points, fill=fill)
    if stroke:
        line = [*points, points[0]] if shape.closed else points
        for piece in _dashes(line, 5 * fine, 4 * fine) if shape.dashed else [line]:
            draw.line(piece, fill=stroke, width=max(1, round(shape.width * fine)), joint="curve")


def _dashes(points: Sequence[Point], on: float, off: float) -> list[list[Point]]:
    """Cuts a polyline into strokes of length `on` with gaps of length `off`."""
    pieces: list[list[Point]] = []
    left, drawing = on, True
    piece = [points[0]]
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        length, at = ((x1 - x0) ** 2 + (y1 - y0) ** 2) ** 0.5, 0.0
        while length - at > left:
            at += left
            here = (x0 + (x1 - x0) * at / length, y0 + (y1 - y0) * at / length)
            if drawing:
                pieces.append([*piece, here])
            piece, drawing = [here], not drawing
            left = on if drawing else off
        left -= length - at
        piece.append((x1, y1))
    return [*pieces, piece] if drawing and len(piece) > 1 else pieces


def _png_label(page: Image.Image, label: Label, fine: int) -> None:
    text = _drawable(label.text)
    if not text.strip():
        return
    face = _face(label.size * fine)
    stroke = fine / 4 if label.bold else 0
    shift = {"start": 0.0, "middle": 0.5, "end": 1.0}[label.anchor] * face.getlength(text)
    mask = Image.new("L", (round(face.getlength(text) + 4 * fine), round(label.size * fine * 1.6)))
    ImageDraw.Draw(mask).text((2 * fine, mask.height / 2), text, 255, face, anchor="lm", stroke_width=stroke)
    if label.turned:
        mask = mask.rotate(90, expand=True)
        corner = (label.x * fine - mask.width / 2, label.y * fine + shift + 2 * fine - mask.height)
    else:
        corner = (label.x * fine - shift - 2 * fine, label.y * fine - mask.height / 2)
    page.paste(PALETTE[label.role][0], (round(corner[0]), round(corner[1])), mask)


def text_width(text: str, size: float) -> float:
    """About how wide a text is, in logical pixels."""
    return _face(48.0).getlength(_drawable(text)) * size / 48.0 * 1.04


@functools.cache
def _face(size: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _drawable(text: str) -> str:
    """PIL's own font is small: signs it lacks become their nearest plain ones, or a question mark."""
    plain = visible(text).translate({0x2192: "->", 0x2013: "-", 0x2014: "-", 0x2212: "-", 0x2265: ">=", 0x2264: "<="})
    return "".join(sign if _known(sign) else "?" for sign in plain)


@functools.cache
def _known(sign: str) -> bool:
    face = _face(24.0)
    return sign.isspace() or bytes(face.getmask(sign)) != bytes(face.getmask("\ufffe"))


def _rgba(role: str, opacity: float) -> tuple[int, int, int, int] | None:
    if not role:
        return None
    value = PALETTE[role][0]
    return int(value[1:3], 16), int(value[3:5], 16), int(value[5:7], 16), round(255 * opacity)
