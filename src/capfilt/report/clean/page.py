"""`report/index.html` of a cleaning run: read without script and network; a script beside it moves the bars."""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from typing import Any

from capfilt import __version__
from capfilt.files import write_text
from capfilt.report.clean.cards import LOOKS, galleries, groups, shortened
from capfilt.report.clean.charts import figures, roc
from capfilt.report.clean.record import DECISIONS, Bars, CleanRecord, Curve, Sample, Truth
from capfilt.report.gallery import esc
from capfilt.report.plot import Figure, to_svg
from capfilt.report.shapes import style_sheet
from capfilt.report.words import amount, kind_name, percent

SCRIPT = "report.js"
NAV = {
    "rows": "Rows",
    "scores": "Scores",
    "truth": "The truth",
    "bars": "Another bar",
    "sources": "Sources",
    "gallery": "Gallery",
    "duplicates": "Duplicates",
    "failures": "Failures",
    "settings": "Settings",
}


def write_clean_report(folder: Path | str, record: CleanRecord) -> Path:
    """Writes `index.html` and the script beside it into `folder`, each whole or not at all; → the page's path.

    Raises CheckFailed when the counts do not add up, StorageError when the disk refuses.
    """
    folder = Path(folder)
    page = render(record)
    write_text(folder / SCRIPT, static(SCRIPT))
    write_text(folder / "index.html", page)
    return folder / "index.html"


def static(name: str) -> str:
    """A file of this package that pages need."""
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def styles() -> str:
    """The colours and rules that the report's and the review's pages share."""
    house = resources.files("capfilt.report").joinpath("page.css").read_text(encoding="utf-8")
    return style_sheet() + house + static("cards.css")


def render(record: CleanRecord) -> str:
    """The page as HTML text. Raises CheckFailed when the counts do not add up."""
    record.check()
    plots = "".join(map(_figure, figures(record).values()))
    sections = [
        ("rows", "What became of the rows", _counts(record) + _reasons(record)),
        ("scores", "What the filter thinks", _scores(plots, record.curve)),
        ("truth", "What is true", _truth(record.truth) if record.truth else ""),
        ("bars", "What if the bar lay elsewhere?", bars(record.bars) if record.bars else ""),
        ("sources", "Where the rows come from", _sources(record)),
        ("gallery", "See for yourself", galleries(record.galleries)),
        ("duplicates", "Images that are the same", _duplicates(record)),
        ("failures", "What could not be read", _failures(record)),
        ("settings", "Settings", _settings(record.settings)),
    ]
    shown = [(name, title, body) for name, title, body in sections if body]
    nav = "".join(f'<a href="#{name}">{NAV[name]}</a>' for name, _, _ in shown)
    body = "".join(f'<section id="{name}"><h2>{title}</h2>{content}</section>' for name, title, content in shown)
    notes = "".join(f"<li>{esc(note)}</li>" for note in record.notes)
    notes = f'<ul class="notes">{notes}</ul>' if notes else ""
    header = f'<header><h1>{esc(record.title)}</h1><p class="intro">{_INTRO}</p><nav>{nav}</nav></header>'
    footer = f"<footer>Written by capfilt {esc(__version__)}. Nothing on this page is loaded from elsewhere.</footer>"
    return _document(record.title, f"{header}<main>{notes}{body}</main>{footer}")


_INTRO = (
    "Every row that went in is on this page as a count, and a few of each kind to look at. Nothing was deleted: "
    "decisions are a view over stored scores, and another rule gives another view in seconds."
)
_SCORES = (
    "<p>ITM says how likely image and text match, from 0 to 1; ITC is the cosine of image and text. "
    "Each curve shows how these texts spread.</p>"
)


def _document(title: str, body: str) -> str:
    style = styles() + static("report.css")
    # One style sheet by its hash, one script from beside the page: nothing that a caption could bring along runs.
    allowed = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode("ascii")
    policy = (
        f"default-src 'none'; img-src data:; style-src 'sha256-{allowed}'; script-src 'self'; "
        "base-uri 'none'; form-action 'none'"
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="referrer" content="no-referrer"><meta name="color-scheme" content="light dark">'
        f'<title>{esc(title)}</title><style>{style}</style><script src="{SCRIPT}" defer></script></head>'
        f"<body>{body}</body></html>\n"
    )


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], style: str = "stack numbers") -> str:
    """rows: cells as HTML, the first of each is the row's head."""
    head = "".join(f'<th scope="col">{esc(text)}</th>' for text in heads)
    body = "".join(
        f'<tr><th scope="row">{first}</th>'
        + "".join(f'<td data-label="{esc(name)}">{cell}</td>' for name, cell in zip(heads[1:], rest, strict=True))
        + "</tr>"
        for first, *rest in rows
    )
    return f'<table class="{style}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def _counts(record: CleanRecord) -> str:
    if not record.counts["in"]:
        return "<p>No rows went in.</p>"
    return ribbon(record.counts) + _funnel(record)


def _funnel(record: CleanRecord) -> str:
    """Rows left after each step."""
    every, drawn = record.counts["in"], ""
    for name, rows, lost in record.funnel:
        drawn += (
            f'<li><b>{esc(name)}</b><svg viewBox="0 0 1000 10" preserveAspectRatio="none" aria-hidden="true">'
            f'<rect class="f-s0" width="{1000 * rows / every:.1f}" height="10"/></svg><p><b>{rows:,}</b> '
            f"<small>{percent(rows, every)}{f' · {esc(lost)}' if lost else ''}</small></p></li>"
        )
    return f'<ol class="funnel">{drawn}</ol>' if drawn else ""


def ribbon(counts: Mapping[str, int]) -> str:
    """The four decisions as one bar, and the sum in words."""
    every, x, drawn, terms = counts["in"], 0.0, "", []
    for name in DECISIONS:
        wide = 1000.0 * counts[name] / every
        drawn += f'<rect class="f-{LOOKS[name]}" x="{x:.2f}" width="{wide:.2f}" height="10"/>'
        x += wide
        share = percent(counts[name], every)
        terms.append(
            f'<span class="term"><i class="dot {LOOKS[name]}"></i><b>{counts[name]:,}</b> {LOOKS[name]} '
            f"<small>{share}</small></span>"
        )
    return (
        '<svg class="bar" viewBox="0 0 1000 10" preserveAspectRatio="none" role="img" '
        f'aria-label="shares of the decisions">{drawn}</svg>'
        f'<p class="equation"><span class="term"><b>{every:,}</b> in</span> = {" + ".join(terms)}</p>'
    )


def _reasons(record: CleanRecord) -> str:
    every = record.counts["in"]
    rows = [
        (
            f'<span class="word {LOOKS[decision]}">{LOOKS[decision]}</span> {esc(kind)}',
            f"{count:,}",
            percent(count, every),
        )
        for decision, kind, count in record.reasons
    ]
    drawn = f"<h3>Why</h3>{_table(['Decision and reason', 'Rows', 'Share'], rows)}" if rows else ""
    texts = [(esc(rule), f"{count:,}", percent(count, every)) for rule, count in record.text_rules.items()]
    if texts:
        drawn += f"<h3>Web texts put out by rules, the image stays</h3>{_table(['Rule', 'Rows', 'Share'], texts)}"
    return drawn


def _scores(plots: str, curve: Curve | None) -> str:
    if not plots:
        return ""
    told = ""
    if curve is not None:
        told = (
            f"<p>People judged {curve.judged:,} texts. By their word the filter's average precision is "
            f"{curve.average:.3f}, and a bar at {curve.best:.3f} has the best F1.</p>"
        )
    return f'{_SCORES}{told}<div class="plots">{plots}</div>'


def _figure(one: Figure) -> str:
    return f"<figure>{to_svg(one, standalone=False)}</figure>"


def _truth(truth: Truth) -> str:
    """Texts whose truth the source tells: before and after, each kind, and how well the heads tell them apart."""
    every, kept = truth.counts
    before, after, stay = (amount(value, "share") for value in (truth.before, truth.precision, truth.recall))
    told = (
        f"Of {every:,} web texts the source says whether they fit their image: {before} do. Of the {kept:,} that are "
        f"kept, {after} do; of all that do, {stay} are kept."
    )
    rows = [
        [
            esc(kind_name(one.kind)),
            "yes" if one.fits else "no",
            f"{one.texts:,}",
            f"{one.ruled:,}",
            f"<span>{one.kept:,} <small>{percent(one.kept, one.texts)}</small></span>",
        ]
        for one in truth.kinds
    ]
    table = _table(["Kind of text", "Fits", "Texts", "Out by rules", "Kept"], rows)
    if not truth.curves:
        return f"<p>{told}</p>{table}"
    areas = ", ".join(f"{head} {area:.3f}" for head, area in truth.auc.items())
    heads = (
        f"How well the filter tells them apart, as the area under its curve (.5 is guessing): {areas}, with ITC at a "
        f"weight of {truth.weight:g} beside ITM, the best on these texts."
    )
    return f'<p>{told}</p><p>{heads}</p><div class="plots">{_figure(roc(truth))}</div>{table}'


def bars(found: Bars) -> str:
    """A table of other bars for everybody, and two sliders where the script runs."""
    rows = []
    for k in range(0, found.steps + 1, found.steps // 10):
        counts = found.counts(k, k)
        rows.append([f"{found.low + k * found.step:.2f}", *(f"{counts[name]:,}" for name in DECISIONS)])
    table = _table(["One bar for both", *(LOOKS[name] for name in DECISIONS)], rows)
    told = _POLICIES.get(found.policy, "")
    return f"<p>By the policy <b>{esc(found.policy)}</b>: {told} Exact at each step.</p>{sliders(found)}{table}"


_POLICIES = {
    "blip": "a web text that passes stays; else a synthetic one that passes takes its place; else the row is dropped.",
    "replace-low": "a web text that passes stays; else a synthetic one that passes takes its place.",
    "best": "of the texts that pass, the better one stays.",
    "both": "both texts stay where one of them passes.",
    "keep-web": "a web text that passes stays, synthetic ones are left out.",
}


def sliders(found: Bars) -> str:
    """A box that `report.js` brings to life, with all it needs."""
    data = esc(json.dumps(asdict(found), separators=(",", ":")))
    parts = "".join(f'<rect class="f-{LOOKS[name]}" data-of="{name}" height="10"/>' for name in DECISIONS)
    terms = "".join(
        f'<span class="term"><i class="dot {LOOKS[name]}"></i><b data-count="{name}"></b> {LOOKS[name]} '
        f'<small data-share="{name}"></small></span>'
        for name in DECISIONS
    )
    return (
        f'<div class="bars" data-bars="{data}" hidden>{_slider(found, "web", found.web)}'
        f'{_slider(found, "synthetic", found.synthetic)}<svg class="bar" viewBox="0 0 1000 10" '
        f'preserveAspectRatio="none" aria-hidden="true">{parts}</svg>'
        f'<p class="equation" role="status">{terms}</p></div>'
    )


def _slider(found: Bars, name: str, value: float | None) -> str:
    at = round(((0.5 if value is None else value) - found.low) / found.step)
    return (
        f'<label class="slider"><span>{name.capitalize()} texts pass from <b class="value"></b></span>'
        f'<input type="range" data-bar="{name}" min="0" max="{found.steps}" '
        f'value="{min(max(at, 0), found.steps)}"></label>'
    )


def _sources(record: CleanRecord) -> str:
    rows = []
    for name, counts in record.sources.items():
        every = sum(counts.values())
        cells = (
            f"<span>{counts.get(d, 0):,} <small>{percent(counts.get(d, 0), every)}</small></span>" for d in DECISIONS
        )
        rows.append([f"<bdi>{shortened(name, 80)}</bdi>", f"{every:,}", *cells])
    return _table(["Source", "Rows", *(LOOKS[d] for d in DECISIONS)], rows) if rows else ""


def _duplicates(record: CleanRecord) -> str:
    if not record.duplicates:
        return ""
    told = f"{record.duplicate_groups:,} groups of images that are the same or look the same; of each, one stays."
    return f"<p>{told}</p>{groups(record.duplicates)}"


def _failures(record: CleanRecord) -> str:
    drawn = ""
    for reason, count, rows in record.failures:
        lines = "".join(_failed(row) for row in rows)
        drawn += (
            f'<details class="section"><summary><b>{esc(reason)}</b> '
            f'<span class="muted">{count:,} rows</span></summary><ul class="lines">{lines}</ul></details>'
        )
    return drawn


def _failed(row: Sample) -> str:
    return f"<li><bdi>{shortened(row.key, 120)}</bdi><small>{shortened(row.reason)}</small></li>"


def _settings(settings: Mapping[str, Any]) -> str:
    rows = [
        (esc(name), shortened(value if isinstance(value, str) else json.dumps(value, default=str)))
        for name, value in settings.items()
    ]
    if not rows:
        return ""
    table = _table(["Setting", "Value"], rows, "settings")
    return f"<details><summary>{len(rows)} settings of this run</summary>{table}</details>"
