"""`capfilt eval`: measure a finished run, or any checkpoint on a task's own files."""

import json
import sys
from collections.abc import Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer


class Task(StrEnum):
    """What `recipes.measured_tasks` can measure."""

    caption = "caption"
    retrieval = "retrieval"
    vqa = "vqa"
    nlvr2 = "nlvr2"
    visdial = "visdial"
    video_retrieval = "video-retrieval"
    video_qa = "video-qa"


def evaluate(
    model: Annotated[
        str, typer.Argument(help="A folder that bootstrap or train wrote; with --task a hub id or checkpoint too.")
    ],
    task: Annotated[
        Task | None, typer.Option(help="Measure one task on its own files.  [default: what a bootstrap run can]")
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(
            "--data",
            "--pairs",
            metavar="PATH",
            help="With --task its annotation files, known by what is in them. Else clean pairs to measure the models "
            "with, or noisy ones of known truth to measure the filter with.  [default: the run's own]",
        ),
    ] = None,
    images: Annotated[
        str | None,
        typer.Option(help="Folder of the images or clips that annotations name.  [default: the annotations' own]"),
    ] = None,
    candidates: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Answers to choose from.  [default: answers are generated]"),
    ] = None,
    extra: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Also meteor or spice; Java and capfilt[metrics] do it.")
    ] = None,
    sets: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="A.B=C",
            help="Change one setting of a task: split=val, limit=100, vocab=FILE, precision=int8, kind.k=128, "
            "faithful.random_swap=true.",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for results, predictions and decoded pictures of a task.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of a table.")] = False,
) -> None:
    """Measure a run's models (on noisy pairs of known truth, its filter), or a checkpoint on a task."""
    from capfilt.errors import ConfigError

    if task is not None:
        given = {"extras": extra, "candidates": candidates}
        changes = [*(sets or []), *(f"kind.{name}={json.dumps(value)}" for name, value in given.items() if value)]
        results = on_task(model, task, data or [], images, out, changes)
        lines = [numbers(results["numbers"]), *told(results, out)]
    elif images or candidates or sets or out:
        raise ConfigError("eval: --images, --candidates, --set and --out belong to --task")
    else:
        results = on_run(Path(model), data or [], extra or [])
        lines = [table(results)]
    for line in [json.dumps(results, indent=2, ensure_ascii=False)] if as_json else lines:
        show(line)


def on_task(
    model: str, task: str, data: list[str], images: str | None, out: Path | None, sets: list[str]
) -> dict[str, Any]:
    """A checkpoint's results on a task's files."""
    from capfilt.recipes.measured_tasks import Files
    from capfilt.recipes.measuring import measure

    return measure(model, task, Files(tuple(data), images), out, sets)


def on_run(run: Path, pairs: list[str], extra: list[str]) -> dict[str, Any]:
    """The scores of a run's models, or its filter."""
    from capfilt.bootstrap.measure import evaluate_run
    from capfilt.cli.train import one

    return evaluate_run(run, one("--pairs", pairs), extra)


def numbers(measured: Mapping[str, Any]) -> Any:
    """A task's numbers as a table; where some stand under the name of a part, a column a part."""
    parts = {name: value for name, value in measured.items() if isinstance(value, Mapping)}
    whole = {name: value for name, value in measured.items() if name not in parts}
    return table({"overall": whole, **parts} if parts else whole)


def told(results: Mapping[str, Any], out: Path | None) -> Iterator[str]:
    """What a table of a task's numbers does not show."""
    if results["unread"]:
        yield "left out: " + ", ".join(f"{count} {reason}" for reason, count in results["unread"].items())
    if kept := results["numbers"].get("kept_back"):
        yield f"the truth of {kept} rows is kept back: predictions only"
    if out is not None:
        yield f"{out / results['predictions']}"


def show(what: Any) -> None:
    """Prints text as it is, and a table; in a file or pipe that is 120 columns wide, so that no column is squeezed."""
    from rich.console import Console

    if isinstance(what, str):  # a console would break its lines
        print(what)
        return
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
