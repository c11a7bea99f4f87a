"""`report.html`: one file that works from a disk, in light and dark, without a script and without the network."""

import base64
import hashlib
import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from capfilt import __version__
from capfilt.files import write_text
from capfilt.report.figures import extra_models, figures
from capfilt.report.flow import flow_png, flow_svg
from capfilt.report.gallery import esc, gallery
from capfilt.report.plot import Figure, to_png, to_svg
from capfilt.report.record import Filter, Interval, Metric, Report, results_json
from capfilt.report.shapes import style_sheet
from capfilt.report.story import glossary, intro, summary
from capfilt.report.table import terminal_table
from capfilt.report.words import (
    FIRST,
    KIND_WORDS,
    SECOND,
    amount,
    duration,
    explanation,
    gain,
    kind_name,
    label,
    model_name,
    number,
    percent,
    short,
    stage_name,
    verdict,
)

__all__ = ["render", "results_json", "terminal_table", "write_report"]


def write_report(folder: Path | str, report: Report) -> Path:
    """Writes `report.html`, `plots/*.svg` and `plots/*.png` into `folder`, each whole or not at all.

    Returns the path of the page. Raises CheckFailed when the counts do not add up, StorageError when the disk refuses.
    """
    folder = Path(folder)
    page = render(report)
    for name, figure in figures(report).items():
        write_text(folder / "plots" / f"{name}.svg", to_svg(figure))
        to_png(figure, folder / "plots" / f"{name}.png")
    write_text(folder / "plots" / "flow.svg", flow_svg(report))
    flow_png(report, folder / "plots" / "flow.png")
    write_text(folder / "report.html", page)
    return folder / "report.html"


def render(report: Report) -> str:
    """The page as HTML text. Raises CheckFailed when the counts do not add up."""
    report.counts.check()
    drawn = figures(report)
    threshold = report.filter.threshold if report.filter else None
    losses = "".join(_plot(figure) for name, figure in drawn.items() if name.startswith("losses"))
    sections = [
        ("result", f"How much better is the {SECOND}?", _results(report) + _row(drawn, "results")),
        ("pairs", "What became of the pairs", _counts(report)),
        ("filter", "How good is the filter?", _filter(report.filter) + _row(drawn, "scores", "roc", "kinds")),
        ("gallery", "See for yourself", gallery(report.gallery, threshold)),
        ("training", "How training went", f'{_LOSSES}<div class="plots">{losses}</div>' if losses else ""),
        ("cost", "What it cost", _cost(report)),
        ("settings", "Settings", _settings(report)),
        ("glossary", "Words used here", _terms(glossary(report))),
    ]
    shown = [(name, title, body) for name, title, body in sections if body]
    nav = "".join(f'<a href="#{name}">{_SHORT[name]}</a>' for name, _, _ in shown)
    body = "".join(f'<section id="{name}"><h2>{title}</h2>{content}</section>' for name, title, content in shown)
    subtitle = f'<p class="subtitle">{esc(report.subtitle)}</p>' if report.subtitle else ""
    notes = "".join(f"<li>{esc(note)}</li>" for note in report.notes)
    notes = f'<ul class="notes">{notes}</ul>' if notes else ""
    told = "".join(f'<p class="intro">{esc(paragraph)}</p>' for paragraph in intro(report))
    header = f"<header><h1>{esc(report.title)}</h1>{subtitle}{told}<nav>{nav}</nav></header>"
    footer = (
        f"<footer>Written by capfilt {esc(__version__)}. This page carries all it shows; it loads nothing.</footer>"
    )
    return _document(report.title, f"{header}<main>{_summary(report)}{_flow(report)}{notes}{body}</main>{footer}")


_LOSSES = (
    "<p>A loss says how wrong a model still is at what it is taught; it should fall. Models learn to compare images "
    "and texts (ITC), to match them (ITM) and to write texts (LM).</p>"
)
_SHORT = {
    "result": "Result",
    "pairs": "Pairs",
    "filter": "Filter",
    "gallery": "Gallery",
    "training": "Training",
    "cost": "Cost",
    "settings": "Settings",
    "glossary": "Glossary",
}


def _document(title: str, body: str) -> str:
    style = style_sheet() + resources.files(__package__).joinpath("page.css").read_text(encoding="utf-8")
    # The hash allows this one style sheet and nothing else: no script, no inline style, no request leaves the page.
    allowed = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode("ascii")
    policy = f"default-src 'none'; img-src data:; style-src 'sha256-{allowed}'; base-uri 'none'; form-action 'none'"
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="referrer" content="no-referrer"><meta name="color-scheme" content="light dark">'
        f"<title>{esc(title)}</title><style>{style}</style></head><body>{body}</body></html>\n"
    )


def _summary(report: Report) -> str:
    steps = "".join(f"<li><h3>{esc(title)}</h3><p>{esc(text)}</p></li>" for title, text in summary(report))
    return f'<ol class="summary">{steps}</ol>'


def _flow(report: Report) -> str:
    wide, tall = flow_svg(report, standalone=False), flow_svg(report, upright=True, standalone=False)
    return f'<div class="flow wide">{wide}</div><div class="flow tall">{tall}</div>'


def _plot(figure: Figure) -> str:
    return f"<figure>{to_svg(figure, standalone=False)}</figure>"


def _row(drawn: Mapping[str, Figure], *names: str) -> str:
    plots = "".join(_plot(drawn[name]) for name in names if name in drawn)
    return f'<div class="plots">{plots}</div>' if plots else ""


def _cell(head: str, body: str, style: str = "") -> str:
    """A table cell that knows its column, so that narrow screens can stack the row."""
    look = f' class="{style}"' if style else ""
    return f'<td{look} data-label="{esc(head)}">{body}</td>'


def _table(heads: list[str], rows: list[str], style: str = "") -> str:
    head = "".join(f'<th scope="col">{esc(text)}</th>' for text in heads)
    return f'<table class="{style}"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'


def _results(report: Report) -> str:
    if not report.metrics:
        return ""
    extra = extra_models(report)
    heads = ["Measure", *map(_capital, (FIRST, SECOND)), "Gain [low, high]", *map(_capital, map(model_name, extra))]
    rows = [f"<tr>{_result_row(metric, heads, extra)}</tr>" for metric in report.metrics]
    points = ", ".join(short(metric) for metric in report.metrics if metric.unit == "points")
    foot = (
        f'<p class="muted small">Gain is {SECOND} minus {FIRST}, with its 95 % interval: in percentage points'
        f"{f', for {points} in points' if points else ''}. An interval without zero means that chance alone does not "
        "explain the change. A measure without a gain is one of the whole test set, not a mean over its images.</p>"
    )
    return _table(heads, rows, "stack numbers") + foot + _models(report)


def _result_row(metric: Metric, heads: list[str], extra: list[str]) -> str:
    found = verdict(metric)
    style = {"better": "better", "worse": "worse"}.get(found, "unclear")
    arrow = {"better": "▲ ", "worse": "▼ "}.get(found, "")
    why = explanation(metric)
    name = f'<th scope="row">{esc(label(metric))}{f"<small>{esc(why)}</small>" if why else ""}</th>'
    values = [
        amount(metric.noisy, metric.unit),
        f"<b>{amount(metric.bootstrapped, metric.unit)}</b>",
        f'<span class="{style}">{arrow}{gain(metric)}</span>',
        *(amount(metric.extra.get(model), metric.unit) for model in extra),
    ]
    return name + "".join(_cell(head.partition(" [")[0], value) for head, value in zip(heads[1:], values, strict=True))


def _models(report: Report) -> str:
    """What each compared model learned from."""
    if not report.models:
        return ""
    told = "Every model starts from nothing and takes the same number of steps. They differ in what they learn from:"
    return f"<p>{told}</p>" + _terms([(_capital(model_name(name)), meaning) for name, meaning in report.models.items()])


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _counts(report: Report) -> str:
    counts = report.counts
    if not counts.given:
        return "<p>No pairs went in.</p>"
    x, bars, terms = 0.0, "", []
    for name, value in counts.parts().items():
        wide = 1000.0 * value / counts.given
        note = f"<title>{value:,} {name}</title>"
        bars += f'<rect class="f-{name}" x="{x:.2f}" width="{wide:.2f}" height="10">{note}</rect>'
        x += wide
        share = percent(value, counts.given)
        terms.append(
            f'<span class="term"><i class="dot {name}"></i><b>{value:,}</b> {name} <small>{share}</small></span>'
        )
    return (
        f'<svg class="bar" viewBox="0 0 1000 10" preserveAspectRatio="none" role="img" '
        f'aria-label="shares of the decisions">{bars}</svg>'
        f'<p class="equation"><span class="term"><b>{counts.given:,}</b> in</span> = {" + ".join(terms)}</p>'
    )


_FILTER_ROWS = {
    "auc_swap": ("AUC, swapped texts", "how well it tells a right text from one that belongs to another image"),
    "auc_attribute": (
        "AUC, one wrong word",
        "how well it tells a right text from the same text with one detail changed",
    ),
    "auc_junk": ("AUC, junk", "how well it tells a right text from file names, shop titles and the like"),
    "precision": ("Precision", "of the texts it kept, the share that truly fit"),
    "recall": ("Recall", "of the texts that truly fit, the share it kept"),
}


def _filter(found: Filter | None) -> str:
    if found is None:
        return ""
    rows = []
    for name, (title, why) in _FILTER_ROWS.items():
        value = getattr(found, name)
        if value is not None:
            shown = _auc(value, found.auc_intervals.get(name)) if name.startswith("auc") else amount(value, "share")
            rows.append(f'<tr><th scope="row">{title}<small>{why}</small></th>{_cell("Value", f"<b>{shown}</b>")}</tr>')
    table = _table(["Measure", "Value [low, high]"], rows, "stack numbers") if rows else ""
    kinds = [
        f'<tr><th scope="row">{esc(kind_name(kind))}<small>{esc(KIND_WORDS.get(kind, ("", ""))[1])}</small></th>'
        f"{_cell('Kept', f'{kept:,}')}{_cell('Of', f'{every:,}')}"
        f"{_cell('Share', f'<b>{percent(kept, every)}</b>')}</tr>"
        for kind, (kept, every) in found.kept_by_kind.items()
    ]
    by_kind = _table(["Kind of web text", "Kept", "Of", "Share"], kinds, "stack numbers") if kinds else ""
    bar = "" if found.threshold is None else f"<p>A text stays from a score of {number(found.threshold)}, the bar.</p>"
    return bar + (f'<div class="tables">{table}{by_kind}</div>' if table or by_kind else "")


def _auc(value: float, interval: Interval | None) -> str:
    return number(value) + (f" [{number(interval[1])}, {number(interval[2])}]" if interval else "")


def _cost(report: Report) -> str:
    facts = []
    if report.seconds is not None:
        facts.append(f"<b>{duration(report.seconds)}</b> for all that the {FIRST} and the {SECOND} need")
    if report.peak_mib is not None:
        facts.append(f"at most <b>{report.peak_mib:,.0f} MiB</b> of memory")
    if report.machine:
        facts.append(f"on {esc(report.machine)}")
    words = f"<p>{', '.join(facts)}.</p>" if facts else ""
    longest = max(report.stages.values(), default=0.0) or 1.0
    rows = [
        f'<tr><th scope="row">{esc(_capital(stage_name(stage)))}</th>{_cell("Time", duration(seconds))}'
        f'<td class="gauge"><svg viewBox="0 0 100 6" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect class="f-s0" width="{100 * seconds / longest:.1f}" height="6"/></svg></td></tr>'
        for stage, seconds in report.stages.items()
    ]
    return words + (_table(["Stage", "Time", ""], rows, "numbers") if rows else "")


def _settings(report: Report) -> str:
    flat = _flat(report.settings)
    rows = [f'<tr><th scope="row">{esc(name)}</th><td>{esc(value)}</td></tr>' for name, value in flat.items()]
    if not rows:
        return ""
    table = _table(["Setting", "Value"], rows, "settings")
    return f"<details><summary>{len(rows)} settings of this run</summary>{table}</details>"


def _flat(values: Mapping[str, Any], before: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= _flat(value, f"{before}{name}.")
        else:
            flat[f"{before}{name}"] = value if isinstance(value, str) else json.dumps(value, default=str)
    return flat


def _terms(terms: list[tuple[str, str]]) -> str:
    return "<dl>" + "".join(f"<dt>{esc(term)}</dt><dd>{esc(meaning)}</dd>" for term, meaning in terms) + "</dl>"
