"""`capfilt train`: one recipe by name."""

from pathlib import Path
from typing import Annotated

import typer


def train(
    recipe: Annotated[str | None, typer.Argument(help="A name from --list.")] = None,
    pairs: Annotated[str | None, typer.Option(help="Image-text pairs to train on, where the recipe takes any.")] = None,
    human: Annotated[str | None, typer.Option(help="Clean pairs; --pairs needs them.")] = None,
    test: Annotated[
        str | None, typer.Option(help="Clean pairs to measure with.  [default: a tenth of --human, held out]")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write.  [default: runs/RECIPE]")] = None,
    sets: Annotated[list[str] | None, typer.Option("--set", metavar="A.B=C", help="Change one setting.")] = None,
    listed: Annotated[bool, typer.Option("--list", help="Show the recipes and leave.")] = False,
) -> None:
    """Run one recipe; --list shows them."""
    from capfilt import recipes
    from capfilt.errors import ConfigError

    if listed:
        width = max(map(len, recipes.RECIPES))
        for name, function in recipes.RECIPES.items():
            print(f"{name:<{width}}  {first_line(function.__doc__)}")
        return
    if recipe is None:
        raise ConfigError("train: name a recipe; capfilt train --list shows them")
    folder = out or Path("runs") / recipe
    recipes.run(recipe, folder, sets or [], pairs, human, test)
    print(folder)


def first_line(text: str | None) -> str:
    """The first line of a docstring, or nothing."""
    return (text or "").strip().partition("\n")[0]
