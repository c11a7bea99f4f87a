"""`capfilt study`: the same comparison over several seeds, so that a difference can be told from luck."""

from pathlib import Path
from typing import Annotated

import typer


def study(
    seeds: Annotated[int, typer.Option(min=1, help="How many, counted from 0.")] = 5,
    out: Annotated[Path, typer.Option(help="Folder to write.")] = Path("runs/study"),
) -> None:
    """Repeat the bootstrap over several seeds."""
    from capfilt.recipes import study as recipe

    recipe.study(seeds, out)
    print(out)
