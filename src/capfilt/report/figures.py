"""Which pictures a report shows: results, scores by truth, ROC, kept shares by kind, loss curves."""

import re
from collections.abc import Sequence

import numpy as np

from capfilt.report.plot import Bars, Figure, Histogram, Line
from capfilt.report.record import Filter, Report
from capfilt.report.words import LOSS_WORDS, kind_name, model_name, number, short, stage_name


def figures(report: Report) -> dict[str, Figure]:
    """File stem → figure, only for what the report knows; in the order of the page."""
    found = report.filter or Filter()
    drawn = {"results": _results(report), "scores": _scores(report, found), "roc": _roc(report), "kinds": _kinds(found)}
    return {name: figure for name, figure in drawn.items() if figure} | _losses(report)


def _results(report: Report) -> Figure | None:
    shown = [m for m in report.metrics if m.unit != "points" and (m.noisy, m.bootstrapped) != (None, None)]
    if not shown:
        return None
    columns = {
        "noisy": [m.noisy for m in shown],
        "bootstrapped": [m.bootstrapped for m in shown],
        **{name: [m.extra.get(name) for m in shown] for name in extra_models(report)},
    }
    bars = [
        Bars(model_name(name), [None if v is None else round(100 * v, 1) for v in values])
        for name, values in columns.items()
    ]
    names = tuple(short(metric) for metric in shown)
    return Figure("First and second model", "", "percent", bars, categories=names, width=560.0)


def extra_models(report: Report) -> list[str]:
    """Names of the models beside the two, in the order they first appear."""
    return list(dict.fromkeys(name for m in report.metrics for name in m.extra))


def _scores(report: Report, found: Filter) -> Figure | None:
    shown = [
        Histogram(f"{kind_name(kind)} ({len(scores):,})", scores)
        for kind, scores in report.scores_by_truth
        if len(scores)
    ]
    if not shown:
        return None
    return Figure(
        "What the filter thinks of each web text",
        "score of the filter",
        "percent of that kind",
        shown,
        x_range=(0.0, 1.0),
        bins=30,
        threshold=found.threshold,
        threshold_label=f"bar {number(found.threshold)}",
    )


def _roc(report: Report) -> Figure | None:
    curves = [
        Line(kind_name(name), [x for x, _ in points], [y for _, y in points])
        for name, points in report.roc.items()
        if len(points) > 1
    ]
    if not curves:
        return None
    return Figure(
        "Right texts kept against wrong ones (ROC)",
        "share of wrong texts kept",
        "share of right texts kept",
        curves,
        x_range=(0.0, 1.0),
        y_range=(0.0, 1.0),
        diagonal=True,
    )


def _kinds(found: Filter) -> Figure | None:
    shares = {kind: 100.0 * kept / every for kind, (kept, every) in found.kept_by_kind.items() if every}
    if not shares:
        return None
    bars = Bars("kept", [round(v, 1) for v in shares.values()])
    names = tuple(kind_name(kind) for kind in shares)
    return Figure("Web texts kept, by kind", "", "percent kept", [bars], categories=names, y_range=(0.0, 106.0))


def _losses(report: Report) -> dict[str, Figure]:
    """One figure a stage, the part of a curve's name before its last slash."""
    stages: dict[str, list[Line]] = {}
    for name, points in report.losses.items():
        stage, _, curve = name.rpartition("/")
        if len(points):
            stages.setdefault(stage, []).append(_smoothed(LOSS_WORDS.get(curve, curve), points))
    drawn: dict[str, Figure] = {}
    for stage, lines in stages.items():
        stem = "losses" + (f"-{slug}" if (slug := re.sub(r"[^a-z0-9]+", "-", stage.lower()).strip("-")) else "")
        while stem in drawn:
            stem += "-2"
        title = stage_name(stage) or "losses"
        which = f" ({lines[0].name})" if len(lines) == 1 else ""  # one line has no legend
        drawn[stem] = Figure(title[:1].upper() + title[1:], "step", f"loss{which}", lines)
    return drawn


def _smoothed(name: str, points: Sequence[tuple[float, float]], windows: int = 80) -> Line:
    """Long curves as the mean of each window, with a band from its 10th to its 90th percentile."""
    table = np.asarray(points, float).reshape(-1, 2)
    if len(table) < 2 * windows:
        return Line(name, table[:, 0].tolist(), table[:, 1].tolist())
    parts = [part[np.isfinite(part[:, 1])] for part in np.array_split(table, windows)]
    parts = [part for part in parts if len(part)]
    low, high = (([float(np.percentile(part[:, 1], q)) for part in parts]) for q in (10, 90))
    means = np.array([part.mean(axis=0) for part in parts]).reshape(-1, 2)
    return Line(name, means[:, 0].tolist(), means[:, 1].tolist(), low, high)
