"""A small figure model (lines with bands, histograms, grouped bars) laid out once and rendered as SVG or PNG."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from capfilt.errors import ConfigError
from capfilt.report import shapes
from capfilt.report.shapes import SERIES, Box, Label, Path2D, Point, Shape

Range = tuple[float, float]


@dataclass(frozen=True)
class Line:
    """A curve through (x, y), both (N,); points that are not finite are gaps. low, high: (N,) edges of its band."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    dashed: bool = False


@dataclass(frozen=True)
class Histogram:
    """Values (N,) counted into the figure's bins and shown as percent of this series, so that sizes compare."""

    name: str
    values: Sequence[float]


@dataclass(frozen=True)
class Bars:
    """One bar for each of the figure's categories, side by side with the other Bars. None leaves a gap."""

    name: str
    heights: Sequence[float | None]


Series = Line | Histogram | Bars


@dataclass(frozen=True)
class Figure:
    """A picture of data.

    series: lines, histograms and bars, coloured in this order. categories: names under the bars.
    x_range, y_range: (low, high); None takes them from the data. bins: of histograms.
    diagonal: a line from (0, 0) to (1, 1), for ROC curves. threshold: x of a marked vertical line, with its label.
    width, height: logical pixels.
    """

    title: str
    x_label: str
    y_label: str
    series: Sequence[Series]
    categories: Sequence[str] = ()
    x_range: Range | None = None
    y_range: Range | None = None
    bins: int = 40
    diagonal: bool = False
    threshold: float | None = None
    threshold_label: str = ""
    width: float = 480.0
    height: float = 320.0

    def __post_init__(self) -> None:
        for item in self.series:
            if isinstance(item, Bars) and len(item.heights) != len(self.categories):
                raise ConfigError(
                    f"figure {self.title!r}: {item.name!r} has {len(item.heights)} bars for "
                    f"{len(self.categories)} categories; give one height (or None) for each."
                )
            if (
                isinstance(item, Line)
                and len({len(v) for v in (item.x, item.y, item.low, item.high) if v is not None}) > 1
            ):
                raise ConfigError(f"figure {self.title!r}: x, y and band of {item.name!r} differ in length.")


def to_svg(figure: Figure, standalone: bool = True) -> str:
    """The figure as SVG text that follows light and dark. `standalone=False` for use inside a page with its colours."""
    return shapes.svg(layout(figure), figure.width, figure.height, figure.title, standalone)


def to_png(figure: Figure, path: Path | str) -> None:
    """Writes the figure as a PNG of twice its logical size, in the light colours."""
    shapes.png(layout(figure), figure.width, figure.height, path)


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten apart) from `low` to `high`, about that many.

    >>> ticks(0, 1)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    span = high - low
    if not (math.isfinite(span) and span > 0):
        return [low]
    rough = span / max(about, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = min((m * power for m in (1, 2, 5, 10)), key=lambda s: abs(math.log(s / rough)))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(k * step, 12) for k in range(first, last + 1)]


def tick_text(value: float, step: float) -> str:
    """A tick's number with as many digits as its distance to the next one needs: `0.25`, `1,200`, `3e+07`."""
    if abs(value) >= 1e7:
        return f"{value:.3g}"
    digits = min(6, max(0, -math.floor(math.log10(step) + 1e-9))) if step > 0 else 2
    return f"{value:,.{digits}f}"


@dataclass(frozen=True)
class _Frame:
    """Where the data lies on paper: pixel edges of the plot and the data ranges they stand for."""

    left: float
    top: float
    right: float
    bottom: float
    x: Range
    y: Range

    def at(self, x: float, y: float) -> Point:
        """Data to paper."""
        across = (x - self.x[0]) / (self.x[1] - self.x[0])
        up = (y - self.y[0]) / (self.y[1] - self.y[0])
        return self.left + across * (self.right - self.left), self.bottom - up * (self.bottom - self.top)


def layout(figure: Figure) -> list[Shape]:
    """The figure as primitives, in drawing order."""
    x, y = _ranges(figure)
    legend, rows = _legend(figure)
    y_ticks = ticks(*y)
    texts = [tick_text(v, _step(y_ticks)) for v in y_ticks]
    left = 42 + max((shapes.text_width(t, 12) for t in texts), default=10)
    top = 44 + 19 * rows
    frame = _Frame(left, top, figure.width - 18, figure.height - (48 if figure.x_label else 30), x, y)
    paper: list[Shape] = [
        Box(0, 0, figure.width, figure.height, fill="paper"),
        Label(left, 22, figure.title, size=15, bold=True),
        *[_moved(shape, left, 44) for shape in legend],
    ]
    paper += _axes(figure, frame, y_ticks, texts)
    for k, item in enumerate(figure.series):
        role = f"s{k % SERIES}"
        if isinstance(item, Line):
            paper += _line(item, frame, role, dashed=item.dashed or k >= SERIES)
        elif isinstance(item, Histogram):
            paper += _histogram(item, frame, role, figure.bins)
    paper += _bars(figure, frame)
    return paper + _markers(figure, frame)


def _ranges(figure: Figure) -> tuple[Range, Range]:
    xs: list[np.ndarray] = []
    ys: list[np.ndarray] = [np.zeros(1)] if any(not isinstance(s, Line) for s in figure.series) else []
    for item in figure.series:
        if isinstance(item, Line):
            xs.append(np.asarray(item.x, float))
            ys += [np.asarray(v, float) for v in (item.y, item.low, item.high) if v is not None]
        elif isinstance(item, Histogram):
            xs.append(np.asarray(item.values, float))
        else:
            ys.append(np.array([h for h in item.heights if h is not None], float))
    x = figure.x_range or ((0.0, float(len(figure.categories))) if figure.categories else _span(xs))
    for item in figure.series:
        if isinstance(item, Histogram):
            ys.append(_counted(item, x, figure.bins)[1])
    return x, figure.y_range or _span(ys, room=0.06)


def _span(values: Sequence[np.ndarray], room: float = 0.0) -> Range:
    """Lowest and highest finite value with a little room above; never empty."""
    every = np.concatenate([np.asarray(v, float).ravel() for v in values]) if values else np.zeros(0)
    every = every[np.isfinite(every)]
    if not len(every):
        return 0.0, 1.0
    low, high = float(every.min()), float(every.max())
    if high - low < 1e-12 * max(1.0, abs(high)):
        return low - 0.5, high + 0.5
    pad = room * (high - low)
    return (low if low == 0 else low - pad), high + pad


def _step(marks: Sequence[float]) -> float:
    return marks[1] - marks[0] if len(marks) > 1 else abs(marks[0]) if marks else 0.0


def _axes(figure: Figure, frame: _Frame, y_ticks: Sequence[float], texts: Sequence[str]) -> list[Shape]:
    drawn: list[Shape] = []
    for value, text in zip(y_ticks, texts, strict=True):
        _, y = frame.at(frame.x[0], value)
        drawn.append(Path2D([(frame.left, y), (frame.right, y)], stroke="grid"))
        drawn.append(Label(frame.left - 8, y, text, size=12, role="muted", anchor="end"))
    if figure.categories:
        for k, name in enumerate(figure.categories):
            x, _ = frame.at(k + 0.5, frame.y[0])
            room = (frame.right - frame.left) / len(figure.categories) - 4
            size = max(9.0, min(12.0, 12.0 * room / max(1.0, shapes.text_width(name, 12))))
            text = _fitted(name, room, size)
            drawn.append(Label(x, frame.bottom + 14, text, size=round(size, 1), role="muted", anchor="middle"))
    else:
        marks = ticks(*frame.x, about=6)
        for value in marks:
            x, _ = frame.at(value, frame.y[0])
            text = tick_text(value, _step(marks))
            drawn.append(Path2D([(x, frame.bottom), (x, frame.bottom + 4)], stroke="muted"))
            drawn.append(Label(x, frame.bottom + 14, text, size=12, role="muted", anchor="middle"))
    drawn.append(Path2D([(frame.left, frame.bottom), (frame.right, frame.bottom)], stroke="muted"))
    middle = (frame.left + frame.right) / 2, (frame.top + frame.bottom) / 2
    drawn.append(Label(middle[0], frame.bottom + 34, figure.x_label, size=12, role="muted", anchor="middle"))
    drawn.append(Label(14, middle[1], figure.y_label, size=12, role="muted", anchor="middle", turned=True))
    return drawn


def _fitted(text: str, room: float, size: float) -> str:
    """The text, cut with an ellipsis where it would run into its neighbour."""
    if shapes.text_width(text, size) <= room + 0.1:
        return text
    while text and shapes.text_width(text + "…", size) > room:
        text = text[:-1]
    return text.rstrip() + "…"


def _legend(figure: Figure) -> tuple[list[Shape], int]:
    """Swatches and names in rows that start at (0, 0), above the data so that they never cover it."""
    if len(figure.series) < 2:
        return [], 0
    drawn: list[Shape] = []
    x, row, room = 0.0, 0, figure.width - 70
    for k, item in enumerate(figure.series):
        wide = 26 + shapes.text_width(item.name, 12) + 16
        if x and x + wide > room:
            x, row = 0.0, row + 1
        y, role = 19.0 * row, f"s{k % SERIES}"
        if isinstance(item, Line):
            dashed = item.dashed or k >= SERIES
            drawn.append(Path2D([(x, y), (x + 18, y)], stroke=role, width=2.4, dashed=dashed))
        else:
            drawn.append(Box(x + 3, y - 5, 12, 10, fill=role, radius=2))
        drawn.append(Label(x + 25, y, item.name, size=12))
        x += wide
    return drawn, row + 1


def _moved(shape: Shape, dx: float, dy: float) -> Shape:
    if isinstance(shape, Path2D):
        moved = [(x + dx, y + dy) for x, y in shape.points]
        return Path2D(moved, shape.stroke, width=shape.width, dashed=shape.dashed)
    if isinstance(shape, Box):
        return Box(shape.x + dx, shape.y + dy, shape.w, shape.h, shape.fill, radius=shape.radius)
    return Label(shape.x + dx, shape.y + dy, shape.text, shape.size, shape.role)


def _line(line: Line, frame: _Frame, role: str, dashed: bool) -> list[Shape]:
    drawn: list[Shape] = []
    x, y = np.asarray(line.x, float), np.asarray(line.y, float)
    if line.low is not None and line.high is not None:
        low, high = np.asarray(line.low, float), np.asarray(line.high, float)
        good = np.isfinite(x) & np.isfinite(low) & np.isfinite(high)
        edge = [_inside(frame, a, b) for a, b in zip(x[good], high[good], strict=True)]
        edge += [_inside(frame, a, b) for a, b in zip(x[good][::-1], low[good][::-1], strict=True)]
        if len(edge) > 2:
            drawn.append(Path2D(edge, fill=role, opacity=0.18, closed=True))
    piece: list[Point] = []
    for a, b in [*zip(x.tolist(), y.tolist(), strict=True), (math.nan, math.nan)]:
        if math.isfinite(a) and math.isfinite(b):
            piece.append(_inside(frame, a, b))
            continue
        if len(piece) > 1:
            drawn.append(Path2D(piece, stroke=role, width=2.0, dashed=dashed))
        elif piece:
            drawn.append(Box(piece[0][0] - 2.5, piece[0][1] - 2.5, 5, 5, fill=role, radius=2.5))
        piece = []
    return drawn


def _inside(frame: _Frame, x: float, y: float) -> Point:
    """On paper, clamped to the frame: a given range may cut a curve, never let it run over the page."""
    px, py = frame.at(x, y)
    return min(max(px, frame.left), frame.right), min(max(py, frame.top - 6), frame.bottom)


def _counted(item: Histogram, x: Range, bins: int) -> tuple[np.ndarray, np.ndarray]:
    values = np.asarray(item.values, float)
    values = np.clip(values[np.isfinite(values)], *x)
    counts, edges = np.histogram(values, bins=bins, range=x)
    return edges, 100.0 * counts / max(1, len(values))


def _histogram(item: Histogram, frame: _Frame, role: str, bins: int) -> list[Shape]:
    edges, shares = _counted(item, frame.x, bins)
    outline: list[Point] = [frame.at(edges[0], 0.0)]
    for k, share in enumerate(shares.tolist()):
        outline += [_inside(frame, edges[k], share), _inside(frame, edges[k + 1], share)]
    outline.append(frame.at(edges[-1], 0.0))
    return [
        Path2D(outline, fill=role, opacity=0.28, closed=True),
        Path2D(outline, stroke=role, width=1.6),
    ]


def _bars(figure: Figure, frame: _Frame) -> list[Shape]:
    groups = [(k, item) for k, item in enumerate(figure.series) if isinstance(item, Bars)]
    drawn: list[Shape] = []
    for place, (k, item) in enumerate(groups):
        wide = 0.74 / len(groups)
        for c, height in enumerate(item.heights):
            if height is None or not math.isfinite(height):
                continue
            x0, y0 = frame.at(c + 0.13 + place * wide, height)
            x1, y1 = frame.at(c + 0.13 + (place + 0.92) * wide, 0.0)
            top, tall = min(y0, y1), abs(y1 - y0)
            value = f"{height:.3g}"
            note = f"{item.name}, {figure.categories[c]}: {value}"
            drawn.append(Box(x0, top, x1 - x0, tall, fill=f"s{k % SERIES}", radius=min(2, tall / 2), note=note))
            if shapes.text_width(value, 10) < x1 - x0 + 2:  # numbers that would touch their neighbours stay in the note
                drawn.append(Label((x0 + x1) / 2, top - 8, value, size=10, role="muted", anchor="middle"))
    return drawn


def _markers(figure: Figure, frame: _Frame) -> list[Shape]:
    drawn: list[Shape] = []
    if figure.diagonal:
        drawn.append(Path2D([frame.at(0, 0), frame.at(1, 1)], stroke="muted", width=1.2, dashed=True))
    if figure.threshold is not None and frame.x[0] <= figure.threshold <= frame.x[1]:
        x, _ = frame.at(figure.threshold, frame.y[0])
        drawn.append(Path2D([(x, frame.bottom), (x, frame.top)], stroke="ink", width=1.4, dashed=True))
        late = figure.threshold > (frame.x[0] + frame.x[1]) / 2
        text = figure.threshold_label or f"threshold {figure.threshold:.2f}"
        drawn.append(Label(x + (-7 if late else 7), frame.top + 8, text, size=12, anchor="end" if late else "start"))
    return drawn
