"""What a cleaning run has to show: one page that needs no network, and no script to be read."""

from capfilt.report.clean.page import write_clean_report
from capfilt.report.clean.record import Bars, CleanRecord, Counted, Curve, Gallery, Group, KindOfText, Sample, Truth

__all__ = [
    "Bars",
    "CleanRecord",
    "Counted",
    "Curve",
    "Gallery",
    "Group",
    "KindOfText",
    "Sample",
    "Truth",
    "write_clean_report",
]
