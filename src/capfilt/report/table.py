"""The table that ends a run in the terminal."""

from rich import box
from rich.table import Table
from rich.text import Text

from capfilt.report.figures import extra_models
from capfilt.report.record import Report
from capfilt.report.words import FIRST, SECOND, amount, gain, label, model_name, verdict, visible

_STYLES = {"better": "green", "worse": "red", "no clear change": "yellow"}


def terminal_table(report: Report) -> Table:
    """Metrics as rows; first model → second model, the gain with its 95 % interval, then other models."""
    counts = report.counts
    parts = " + ".join(f"{value:,} {name}" for name, value in counts.parts().items())
    table = Table(
        title=Text(visible(report.title), style="bold"),
        caption=Text(f"{counts.given:,} pairs in = {parts}"),
        box=box.SIMPLE_HEAD,
    )
    table.add_column("metric")
    table.add_column(FIRST, justify="right")
    table.add_column(f"→ {SECOND}", justify="right", style="bold")
    table.add_column("gain [95 %]", justify="right")
    for name in extra_models(report):
        table.add_column(Text(visible(model_name(name))), justify="right", style="dim")
    for metric in report.metrics:
        table.add_row(
            Text(visible(label(metric))),
            amount(metric.noisy, metric.unit),
            amount(metric.bootstrapped, metric.unit),
            Text(gain(metric), style=_STYLES.get(verdict(metric), "")),
            *(amount(metric.extra.get(name), metric.unit) for name in extra_models(report)),
        )
    return table
