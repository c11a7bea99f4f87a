"""Figures: round ticks, well-formed SVG that follows the theme, PNG with the data really on it."""

import math
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from PIL import Image

from capfilt.errors import ConfigError
from capfilt.report import Bars, Figure, Histogram, Line, to_png, to_svg
from capfilt.report.figures import figures
from capfilt.report.plot import layout, tick_text, ticks
from capfilt.report.shapes import PALETTE, Box, Label, Path2D

SVG = "{http://www.w3.org/2000/svg}"


def rgb(role: str) -> tuple[int, int, int]:
    value = PALETTE[role][0]
    return int(value[1:3], 16), int(value[3:5], 16), int(value[5:7], 16)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (0, 12000, [0, 2000, 4000, 6000, 8000, 10000, 12000]),
        (-0.013, 0.021, [-0.01, -0.005, 0, 0.005, 0.01, 0.015, 0.02]),
    ],
)
def test_ticks_are_round_and_inside(low, high, expected):
    found = ticks(low, high)
    assert all(low <= v <= high for v in found) and 3 <= len(found) <= 9
    assert found == pytest.approx(expected)


def test_ticks_of_an_empty_range_do_not_loop():
    assert ticks(3, 3) == [3] and ticks(0, math.nan) == [0]


def test_tick_text_has_the_digits_its_step_needs():
    assert [tick_text(0.25, 0.05), tick_text(1200, 200), tick_text(0.2, 0.2)] == ["0.25", "1,200", "0.2"]


def test_svg_of_every_figure_is_well_formed_and_themed(report):
    for name, figure in figures(report).items():
        text = to_svg(figure)
        root = ElementTree.fromstring(text)
        assert root.tag == f"{SVG}svg" and root.find(f"{SVG}title").text == figure.title, name
        assert "prefers-color-scheme:dark" in text and "nan" not in text and "inf" not in text.replace("info", ""), name
        inner = to_svg(figure, standalone=False)
        assert "xmlns" not in inner and "<style" not in inner, "inside a page the page's colours rule"


def test_hostile_names_are_escaped():
    hostile = '</text><script>alert("1")</script>&\x00\u202e'
    figure = Figure(
        hostile, hostile, hostile, [Line(hostile, [0, 1], [0, 1]), Bars(hostile, [1.0])], categories=(hostile,)
    )
    root = ElementTree.fromstring(to_svg(figure))
    assert not root.findall(f".//{SVG}script")


def test_png_shows_every_series_in_its_colour(tmp_path):
    x = np.linspace(0, 1, 50)
    figure = Figure(
        "t", "x", "y", [Line("up", x, x, x - 0.1, x + 0.1), Line("down", x, 1 - x)], threshold=0.5, diagonal=True
    )
    to_png(figure, tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        assert image.size == (960, 640)
        pixels = np.asarray(image.convert("RGB")).reshape(-1, 3).astype(int)
    for role in ("s0", "s1", "ink", "muted"):
        near = (np.abs(pixels - rgb(role)).max(axis=1) < 12).sum()
        assert near > 60, f"{role} is not on the picture"
    assert (pixels == 255).all(axis=1).mean() > 0.5


def test_histogram_shows_shares_and_keeps_values_at_the_edges():
    figure = Figure("t", "x", "y", [Histogram("a", [0.0] * 30 + [1.0] * 10)], x_range=(0, 1), y_range=(0, 100), bins=4)
    outline = next(s for s in layout(figure) if isinstance(s, Path2D) and s.fill == "s0")
    bottom, top = outline.points[0][1], min(y for _, y in outline.points)
    last = outline.points[-2][1]
    assert (bottom - last) / (bottom - top) == pytest.approx(1 / 3), "30 low and 10 high values: 75 % and 25 %"


def test_bars_start_at_zero_leave_gaps_and_point_down_when_negative():
    figure = Figure("t", "", "y", [Bars("a", [10.0, None, -5.0])], categories=("p", "q", "r"))
    up, down = [s for s in layout(figure) if isinstance(s, Box) and s.fill == "s0"]
    assert up.y + up.h == pytest.approx(down.y), "both touch the zero line"
    assert up.h == pytest.approx(2 * down.h)


def test_gaps_in_a_line_and_ranges_that_cut_it():
    figure = Figure("t", "x", "y", [Line("a", [0, 1, 2, 3, 4], [0, 9, math.nan, 1, 0.5])], y_range=(0, 1))
    lines = [s for s in layout(figure) if isinstance(s, Path2D) and s.stroke == "s0"]
    assert len(lines) == 2
    assert all(0 <= x <= figure.width and 0 <= y <= figure.height for s in lines for x, y in s.points)


def test_empty_constant_and_single_point_data_draw():
    for series in ([], [Line("a", [], [])], [Line("a", [1], [2])], [Line("a", [1, 2], [5, 5])], [Histogram("h", [])]):
        ElementTree.fromstring(to_svg(Figure("t", "x", "y", series)))


def test_long_category_names_do_not_run_into_each_other():
    figure = Figure(
        "t", "", "y", [Bars("a", [1.0] * 6)], categories=tuple("a very long name of a kind" for _ in range(6))
    )
    names = [s for s in layout(figure) if isinstance(s, Label) and s.text.endswith("…")]
    assert len(names) == 6


def test_lengths_that_differ_are_refused():
    with pytest.raises(ConfigError, match="2 bars for 1 categories"):
        Figure("t", "", "", [Bars("a", [1.0, 2.0])], categories=("one",))
    with pytest.raises(ConfigError, match="differ in length"):
        Figure("t", "", "", [Line("a", [1, 2], [1])])


def test_long_loss_curves_are_smoothed_with_a_band(report):
    long, short = (figures(report)[f"losses-models-{name}"].series[0] for name in ("noisy", "bootstrapped"))
    assert len(long.x) == 80 and all(a <= m <= b for a, m, b in zip(long.low, long.y, long.high, strict=True))
    assert len(short.x) == 3 and short.low is None


def contrast(a: tuple[int, ...], b: tuple[int, ...]) -> float:
    """WCAG 2 contrast ratio of two sRGB colours."""

    def light(colour):
        linear = [c / 255 / 12.92 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((light(a), light(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_colours_stand_out_from_the_paper_in_both_themes():
    for theme in (0, 1):
        paper = tuple(bytes.fromhex(PALETTE["paper"][theme][1:]))
        for role, need in [("ink", 7), ("muted", 4.5), *[(f"s{k}", 3) for k in range(8)]]:
            found = contrast(tuple(bytes.fromhex(PALETTE[role][theme][1:])), paper)
            assert found >= need, f"{role} in theme {theme}: {found:.2f}"
