"""Looking at a collection without a model: what can be read (`capfilt check`), what comes more than once (`dedup`)."""

import contextlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from capfilt.clean import rules
from capfilt.clean.engines.here import Here
from capfilt.clean.intake import tasks
from capfilt.clean.ledger import Ledger
from capfilt.clean.rules import Rules
from capfilt.clean.stages import Scan
from capfilt.data.sources import open_source
from capfilt.errors import FailRateError
from capfilt.progress import Progress

SHARD = 1000
OFF = {"min_px": 0, "max_aspect": 0, "min_words": 0, "max_words": 0, "min_chars": 0, "boilerplate_rows": 0}


def check(source: str) -> dict[str, Any]:
    """Every row read and every image decoded: rows, usable ones, failures by reason with the first few, oddities."""
    reasons, notes, formats, examples = Counter[str](), Counter[str](), Counter[str](), dict[str, list[str]]()
    rows = texts = 0
    with _looked(source) as ledger:
        names = ["texts", "text_flags", "failed", "error", "format", "notes"]
        for table in ledger.tables("rows", names):
            rows += len(table)
            for row in table.to_pylist():
                texts += bool(row["texts"])
                notes.update((*(row["notes"] or ()), *(row["text_flags"] or ())))
                if row["failed"]:
                    reasons[row["failed"]] += 1
                    examples.setdefault(row["failed"], [])
                    examples[row["failed"]] += [row["error"]] * (len(examples[row["failed"]]) < 3)
                else:
                    formats[row["format"]] += 1
    return {
        "rows": rows,
        "usable": rows - reasons.total(),
        "with_text": texts,
        "failed": dict(reasons.most_common()),
        "formats": dict(formats.most_common()),
        "notes": dict(notes.most_common()),
        "examples": examples,
    }


def checked(found: dict[str, Any]) -> list[str]:
    """What `check` found, as lines for a person."""
    lines = [f"{found['usable']} of {found['rows']} rows can be used, {found['with_text']} come with a text"]
    lines.append("formats: " + (", ".join(f"{name} {count}" for name, count in found["formats"].items()) or "none"))
    if found["notes"]:
        lines.append("odd: " + ", ".join(f"{name} {count}" for name, count in found["notes"].items()))
    for reason, count in found["failed"].items():
        lines += [f"{reason} {count}", *(f"    {line}" for line in found["examples"][reason])]
    return lines


def within(found: dict[str, Any], most: float) -> None:
    """Raises FailRateError where a larger share of the rows than `most` failed."""
    failed = found["rows"] - found["usable"]
    if failed > most * found["rows"]:
        raise FailRateError(f"{failed} of {found['rows']} rows cannot be used, more than --max-fail-rate {most:g}")


def duplicates(source: str, bits: int, exact: bool = False) -> list[dict[str, Any]]:
    """Groups of images that are the same: {"keep": key, "others": [keys]}, in the order of the source."""
    kind = "exact" if exact else "alike"
    only = Rules(**OFF, min_spread=2.0, opt_out=False, duplicates=kind, alike_bits=bits)  # type: ignore[arg-type]
    with _looked(source) as ledger:
        flags = rules.flags(ledger.tables("rows", rules.NEEDS), only)
        keys = [key for table in ledger.tables("rows", ["key"]) for key in table["key"].to_pylist()]
    groups: dict[str, list[str]] = {}
    named = dict(zip(flags["id"].to_pylist(), keys, strict=True))
    for own, group in zip(flags["id"].to_pylist(), flags["group"].to_pylist(), strict=True):
        if group is not None and group != own:
            groups.setdefault(named[group], []).append(named[own])
    return [{"keep": keep, "others": others} for keep, others in groups.items()]


@contextlib.contextmanager
def _looked(source: str) -> Iterator[Ledger]:
    """The rows of a collection, measured; they are gone afterwards."""
    opened = open_source(source, captions="optional")
    with TemporaryDirectory() as folder, Progress("look") as bar:
        ledger = Ledger(Path(folder))
        with contextlib.closing(Here().run(Scan(), tasks(opened, SHARD, ()))) as made:
            for shard, table in made:
                ledger.commit("rows", shard, table)
                bar.update(ledger.rows("rows"))
        yield ledger
