"""The figures of a cleaning run's page: scores of both texts with the bar, precision against recall, and ROC."""

import numpy as np

from capfilt.report.clean.record import CleanRecord, Counted, Curve, Truth
from capfilt.report.plot import Figure, Line

SHOWN = 50  # bins of a histogram at most


def figures(record: CleanRecord) -> dict[str, Figure]:
    """File stem → figure, for what the run knows."""
    drawn = {f"scores-{one.name.lower()}": _scores(one) for one in record.scores if any(map(sum, one.series.values()))}
    if record.curve:
        drawn["precision-recall"] = _curve(record.curve)
    return drawn


def roc(truth: Truth) -> Figure:
    """What each head lets through, wherever the bar lies."""
    return Figure(
        "Right texts kept against wrong ones (ROC)",
        "share of wrong texts kept",
        "share of right texts kept",
        [Line(head, [x for x, _ in points], [y for _, y in points]) for head, points in truth.curves.items()],
        x_range=(0.0, 1.0),
        y_range=(0.0, 1.0),
        diagonal=True,
    )


def _scores(one: Counted) -> Figure:
    counts = {name: np.asarray(values, float) for name, values in one.series.items() if sum(values)}
    used = np.flatnonzero(sum(counts.values()))
    edges = np.linspace(one.low, one.high, len(next(iter(counts.values()))) + 1)
    first, last = int(used[0]), int(used[-1]) + 1
    together = max(1, -(-(last - first) // SHOWN))  # bins that become one, so that few remain
    last = min(len(edges) - 1, first + together * -(-(last - first) // together))
    lines = []
    for name, values in counts.items():
        parts = np.add.reduceat(values[first:last], np.arange(0, last - first, together))
        left = edges[first:last:together]
        x = np.repeat(np.append(left, edges[last]), 2)
        y = np.concatenate([[0.0], np.repeat(100 * parts / values.sum(), 2), [0.0]])
        rows = f"{int(values.sum()):,}"
        lines.append(Line(f"{name} ({rows})", x.tolist(), y.tolist(), [0.0] * len(x), y.tolist()))
    bar = next(iter(one.bars.items()), None)
    return Figure(
        f"{one.name} of the texts",
        f"{one.name} score",
        "percent of these texts",
        lines,
        x_range=(float(edges[first]), float(edges[last])),
        threshold=bar[1] if bar else None,
        threshold_label=bar[0] if bar else "",
    )


def _curve(curve: Curve) -> Figure:
    line = Line("filter", [r for r, _ in curve.points], [p for _, p in curve.points])
    return Figure(
        "Texts that pass, by what people said",
        "recall: share of good texts that pass",
        "precision: share of passing texts that are good",
        [line],
        x_range=(0.0, 1.0),
        y_range=(0.0, 1.0),
    )
