"""`capfilt bench`: how fast this machine trains, captions and filters."""

from pathlib import Path
from typing import Annotated

import typer


def bench(
    short: Annotated[bool, typer.Option("--short", help="A quick look instead of numbers to quote.")] = False,
    out: Annotated[Path, typer.Option(help="Folder to write.")] = Path("runs/bench"),
) -> None:
    """Time every stage on this machine."""
    from capfilt.recipes import bench as recipe

    recipe.bench(short, out)
    print(out)
