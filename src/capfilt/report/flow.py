"""The run as one picture: web and human pairs → model 0 → captioner and filter → cleaned set → model 1."""

from dataclasses import dataclass

from capfilt.report import shapes
from capfilt.report.record import Filter, Report, Texts
from capfilt.report.shapes import Box, Label, Path2D, Point, Shape
from capfilt.report.words import amount, percent

WIDE, TALL = 164.0, 78.0


@dataclass(frozen=True)
class _Node:
    """A box at stage `step` of the flow, on lane 0 (first), 0.5 (middle) or 1 (second)."""

    step: int
    lane: float
    name: str
    lines: tuple[str, ...]
    role: str = "muted"


def flow_svg(report: Report, upright: bool = False, standalone: bool = True) -> str:
    """The picture, left to right; `upright` runs from top to bottom, for narrow screens."""
    drawn, width, height = _draw(report, upright)
    return shapes.svg(drawn, width, height, "How the data flowed through the run", standalone)


def flow_png(report: Report, path: object) -> None:
    """The picture, left to right, as PNG."""
    drawn, width, height = _draw(report, upright=False)
    shapes.png(drawn, width, height, str(path))


def _nodes(report: Report) -> list[_Node]:
    counts, found, texts = report.counts, report.filter or Filter(), report.texts or Texts()
    headline = next((m for m in report.metrics if m.noisy is not None and m.bootstrapped is not None), None)
    name = {"tr1": "TR@1", "ir1": "IR@1"}.get(headline.name, headline.name) if headline else ""
    before = (f"{name} {amount(headline.noisy, headline.unit)}",) if headline else ()
    after = (f"{name} {amount(headline.bootstrapped, headline.unit)}",) if headline else ()
    kept = counts.kept + counts.replaced
    if texts.kept_web is not None and texts.kept_synthetic is not None:
        made = f"{texts.kept_web:,} web + {texts.kept_synthetic:,} new texts"
    else:
        made = f"{counts.kept:,} kept, {counts.replaced:,} replaced"
    bar = () if found.threshold is None else (f"keeps from {found.threshold:.2f}",)
    true = (f"{amount(texts.truth_web, 'share')} true",) if texts.truth_web is not None else ()
    wrote = (f"{texts.synthetic:,} new texts",) if texts.synthetic is not None else ("a text for each image",)
    said = (f"{amount(texts.truth_synthetic, 'share')} true",) if texts.truth_synthetic is not None else ()
    pure = (f"{amount(texts.truth_cleaned, 'share')} true",) if texts.truth_cleaned is not None else ()
    nodes = [
        _Node(0, 0, "Web pairs", (f"{counts.given:,} noisy", *true), "s1"),
        _Node(1, 0.5, "Model 0", ("learns from noise", *before), "s4"),
        _Node(2, 0, "Captioner", (*wrote, *said), "s0"),
        _Node(2, 1, "Filter", (f"drops {counts.dropped:,} images", *bar), "s3"),
        _Node(3, 0.5, "Cleaned set", (f"{kept:,} images ({percent(kept, counts.given)})", *(pure or (made,))), "s2"),
        _Node(4, 0.5, "Model 1", ("learns from clean", *after), "s2"),
    ]
    if texts.human:
        nodes.insert(1, _Node(0, 1, "Human pairs", (f"{texts.human:,} hand-written",), "s2"))
    return nodes


def _draw(report: Report, upright: bool) -> tuple[list[Shape], float, float]:
    nodes = _nodes(report)
    alone = not report.texts or not report.texts.human  # without human pairs the web pairs take the middle
    across, down = (WIDE + 12, TALL + 34) if upright else (WIDE + 40, TALL + 22)

    def corner(node: _Node) -> Point:
        lane = 0.5 if alone and node.step == 0 else node.lane
        return (6 + lane * across, 6 + node.step * down) if upright else (6 + node.step * across, 6 + lane * down)

    width, height = (
        (across + WIDE + 12, 4 * down + TALL + 12) if upright else (4 * across + WIDE + 12, down + TALL + 12)
    )
    drawn: list[Shape] = [Box(0, 0, width, height, fill="paper")]
    for first in nodes:
        for second in nodes:
            if second.step == first.step + 1 and first.name != "Captioner":  # what it writes passes the filter first
                drawn += _arrow(corner(first), corner(second), upright)
    captioner, judge = (next(n for n in nodes if n.name == name) for name in ("Captioner", "Filter"))
    drawn += _arrow(corner(captioner), corner(judge), upright=not upright)
    for node in nodes:
        drawn += _box(node, *corner(node))
    return drawn, width, height


def _box(node: _Node, x: float, y: float) -> list[Shape]:
    drawn: list[Shape] = [
        Box(x, y, WIDE, TALL, fill="soft", stroke="grid", radius=9),
        Box(x, y + 12, 4, TALL - 24, fill=node.role, radius=2),
        Label(x + 15, y + (20 if len(node.lines) > 1 else 28), node.name, size=14.5, bold=True),
    ]
    start = y + (41 if len(node.lines) > 1 else 50)
    for k, line in enumerate(node.lines[:2]):
        size = min(12.0, 12.0 * (WIDE - 22) / max(1.0, shapes.text_width(line, 12)))
        drawn.append(Label(x + 15, start + 18 * k, line, size=round(size, 1), role="muted"))
    return drawn


def _arrow(start: Point, end: Point, upright: bool) -> list[Shape]:
    """From one box's far side to the next one's near side, bent like a stair."""
    if upright:
        a, b = (start[0] + WIDE / 2, start[1] + TALL), (end[0] + WIDE / 2, end[1] - 2)
        middle = (a[1] + b[1]) / 2
        bend, head = [a, (a[0], middle), (b[0], middle), b], [(b[0] - 4.5, b[1] - 7), b, (b[0] + 4.5, b[1] - 7)]
    else:
        a, b = (start[0] + WIDE, start[1] + TALL / 2), (end[0] - 2, end[1] + TALL / 2)
        middle = (a[0] + b[0]) / 2
        bend, head = [a, (middle, a[1]), (middle, b[1]), b], [(b[0] - 7, b[1] - 4.5), b, (b[0] - 7, b[1] + 4.5)]
    tip = [head[0], head[1], head[2]]
    return [Path2D(bend, stroke="muted", width=1.4), Path2D(tip, fill="muted", closed=True)]
