"""`capfilt bench`: how fast this machine trains, against the plain way of writing the same step."""

from pathlib import Path
from typing import Annotated

import typer


def bench(
    short: Annotated[bool, typer.Option("--short", help="A quick look instead of numbers to quote.")] = False,
    out: Annotated[Path, typer.Option(help="Folder to write.")] = Path("runs/bench"),
) -> None:
    """Time the training step on this machine, against the plain way of writing it."""
    from capfilt.recipes import bench as recipe

    recipe.bench(short, out)
    print(out)
