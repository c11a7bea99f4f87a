"""The run as one picture: web and human pairs → first model → captioner and filter → cleaned set → second model.

The human pairs have a line of their own, which also leads to captioner and filter and to the second model."""

from dataclasses import dataclass

from capfilt.report import shapes
from capfilt.report.record import Filter, Report, Texts
from capfilt.report.shapes import Box, Label, Path2D, Point, Shape
from capfilt.report.words import FIRST, SECOND, amount, number, percent, short

WIDE, TALL = 164.0, 78.0
EDGE, HEAD = 10.0, 26.0  # room around the boxes, and for the words above the group
LINE = 22.0  # from the boxes to the line of the human pairs
HUMAN = "s0"  # the colour of the human pairs and of their line
COPIES = "copies of the first model"


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
    name = short(headline) if headline else ""
    before = (f"{name} {amount(headline.noisy, headline.unit)}",) if headline else ()
    after = (f"{name} {amount(headline.bootstrapped, headline.unit)}",) if headline else ()
    kept = counts.kept + counts.replaced
    if texts.kept_web is not None and texts.kept_synthetic is not None:
        made = f"{texts.kept_web:,} web + {texts.kept_synthetic:,} new texts"
    else:
        made = f"{counts.kept:,} kept, {counts.replaced:,} replaced"
    bar = () if found.threshold is None else (f"keeps from {number(found.threshold)}",)
    true = (f"{amount(texts.truth_web, 'share')} true",) if texts.truth_web is not None else ()
    wrote = (f"{texts.synthetic:,} new texts",) if texts.synthetic is not None else ("a text for each image",)
    said = (f"{amount(texts.truth_synthetic, 'share')} true",) if texts.truth_synthetic is not None else ()
    pure = (f"{amount(texts.truth_cleaned, 'share')} true",) if texts.truth_cleaned is not None else ()
    nodes = [
        _Node(0, 0, "Web pairs", (f"{counts.given:,} noisy", *true), "s1"),
        _Node(1, 0.5, FIRST.capitalize(), ("learns from all pairs", *before), "s4"),
        _Node(2, 0, "Captioner", (*wrote, *said), "s0"),
        _Node(2, 1, "Filter", (f"drops {counts.dropped:,} images", *bar), "s3"),
        _Node(3, 0.5, "Cleaned set", (f"{kept:,} images ({percent(kept, counts.given)})", *(pure or (made,))), "s2"),
        _Node(4, 0.5, SECOND.capitalize(), ("starts from nothing", *after), "s2"),
    ]
    if texts.human:
        told = f"{texts.human:,} {'drawn, all true' if report.drawn else 'trusted'}"
        nodes.insert(1, _Node(0, 1, "Human pairs", (told,), HUMAN))
    return nodes


def _draw(report: Report, upright: bool) -> tuple[list[Shape], float, float]:
    nodes = _nodes(report)
    taught = bool(report.texts and report.texts.human)  # else the web pairs take the middle
    across, down = (WIDE + 28, TALL + 54) if upright else (WIDE + 46, TALL + 28)

    def corner(node: _Node) -> Point:
        lane = node.lane if taught or node.step else 0.5
        x, y = (lane, node.step) if upright else (node.step, lane)
        return EDGE + x * across, (EDGE if upright else HEAD) + y * down

    steps, lanes = (down, across) if upright else (across, down)
    width, height = (lanes + WIDE, EDGE + 4 * steps + TALL) if upright else (4 * steps + WIDE, HEAD + lanes + TALL)
    width, height = width + 2 * EDGE, height + EDGE
    width, height = (width + LINE, height) if upright else (width, height + LINE)
    at = {node.name: corner(node) for node in nodes}
    drawn: list[Shape] = [Box(0, 0, width, height, fill="paper"), *_group(at["Captioner"], at["Filter"])]
    for first in nodes:
        for second in nodes:
            if second.step == first.step + 1 and first.name != "Captioner":  # what it writes passes the filter first
                drawn += _arrow(at[first.name], at[second.name], upright)
    drawn += _arrow(at["Captioner"], at["Filter"], upright=not upright)
    if taught:
        drawn += _taught(at["Human pairs"], at["Filter"], at[SECOND.capitalize()], upright)
    for node in nodes:
        drawn += _box(node, *at[node.name])
    return drawn, width, height


def _group(captioner: Point, judge: Point) -> list[Shape]:
    """The frame around captioner and filter."""
    (x, y), (right, bottom) = captioner, (judge[0] + WIDE, judge[1] + TALL)
    return [
        Box(x - 7, y - 20, right - x + 14, bottom - y + 27, stroke="grid", radius=12),
        Label((x + right) / 2, y - 10, COPIES, size=11, role="muted", anchor="middle"),
    ]


def _taught(human: Point, judge: Point, second: Point, upright: bool) -> list[Shape]:
    """The line from the human pairs along the outer edge, into the frame of the filter and into the second model."""
    if upright:
        edge = human[0] + WIDE + LINE
        start, ends = (human[0] + WIDE, human[1] + TALL / 2), [(judge[0] + WIDE + 7, judge[1] + TALL / 2)]
        ends.append((second[0] + WIDE, second[1] + TALL / 2))
        turns = [[start, (edge, start[1]), (edge, end[1]), end] for end in ends]
        heads = [[(x + 8, y - 4.5), (x + 1, y), (x + 8, y + 4.5)] for x, y in ends]
    else:
        edge = human[1] + TALL + LINE
        start, ends = (human[0] + WIDE / 2, human[1] + TALL), [(judge[0] + WIDE / 2, judge[1] + TALL + 7)]
        ends.append((second[0] + WIDE / 2, second[1] + TALL))
        turns = [[start, (start[0], edge), (end[0], edge), end] for end in ends]
        heads = [[(x - 4.5, y + 8), (x, y + 1), (x + 4.5, y + 8)] for x, y in ends]
    lines: list[Shape] = [Path2D(turn, stroke=HUMAN, width=1.4) for turn in turns]
    return [*lines, *(Path2D(head, fill=HUMAN, closed=True) for head in heads)]


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
