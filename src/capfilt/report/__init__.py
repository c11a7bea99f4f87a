"""What a run has to show: one self-contained page, plots as SVG and PNG, a terminal table, a JSON of results."""

from capfilt.report.page import write_report
from capfilt.report.plot import Bars, Figure, Histogram, Line, to_png, to_svg
from capfilt.report.record import Card, Counts, Filter, Metric, Report, Texts, results_json
from capfilt.report.table import terminal_table

__all__ = [
    "Bars",
    "Card",
    "Counts",
    "Figure",
    "Filter",
    "Histogram",
    "Line",
    "Metric",
    "Report",
    "Texts",
    "results_json",
    "terminal_table",
    "to_png",
    "to_svg",
    "write_report",
]
