"""`capfilt eval`: measure a finished run, on its own test pairs or on others."""

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer


def evaluate(
    run: Annotated[Path, typer.Argument(help="A folder that bootstrap or train wrote.")],
    pairs: Annotated[
        str | None,
        typer.Option(
            help="Clean pairs to measure the models with, or noisy ones of known truth to measure the filter "
            "with.  [default: the run's own]"
        ),
    ] = None,
    extra: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Also meteor or spice; Java and capfilt[metrics] do it.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of a table.")] = False,
) -> None:
    """Measure the models of a run: retrieval and captions; or, on noisy pairs of known truth, its filter."""
    from capfilt.bootstrap import measure

    scores = measure.evaluate_run(run, pairs, extra or [])
    if as_json:
        print(json.dumps(scores, indent=2, ensure_ascii=False))
    else:
        show(table(scores))


def show(what: Any) -> None:
    """Prints a table or text as it is; in a file or pipe 120 columns wide, so that no column is squeezed."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else 120
    Console(markup=False, highlight=False, width=width).print(what)


def table(scores: Mapping[str, Any]) -> Any:
    """Scores as a rich table: a column a model where every value is a mapping, else a line a number.

    scores: names to numbers or words, nested at will; deeper names are joined with dots.
    """
    from rich.table import Table

    columns = dict(scores) if scores and all(isinstance(v, Mapping) for v in scores.values()) else {"": scores}
    cells = {name: dict(flat(values)) for name, values in columns.items()}
    grid = Table("measure", *cells, box=None, pad_edge=False)
    for column in grid.columns[1:]:
        column.justify = "right"
    for line in dict.fromkeys(line for values in cells.values() for line in values):
        grid.add_row(line, *(shown(values.get(line)) for values in cells.values()))
    return grid


def flat(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted name, value) for every leaf."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{above}{name}.")
        else:
            yield above + name, value


def shown(value: Any) -> str:
    """A number at four digits; a dash where nothing was measured."""
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
