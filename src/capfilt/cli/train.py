"""`capfilt train`: one recipe by name."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated

import typer

Data = Annotated[
    list[str] | None,
    typer.Option(
        "--data",
        "--pairs",
        metavar="PATH",
        help="What to learn from: image-text pairs; for blip- recipes annotations too, known by what is in them.",
    ),
]


def train(
    recipe: Annotated[str | None, typer.Argument(help="A name from --list.")] = None,
    data: Data = None,
    human: Annotated[
        str | None, typer.Option(help="Clean pairs; recipes of the cycle need them beside --pairs.")
    ] = None,
    val: Annotated[
        list[str] | None,
        typer.Option(
            "--val",
            "--test",
            metavar="PATH",
            help="The same, to measure with.  [default: a tenth of --human, held out; nothing without --human]",
        ),
    ] = None,
    images: Annotated[
        str | None, typer.Option(help="Folder of the images that annotations name.  [default: the annotations' own]")
    ] = None,
    init: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="What a blip- recipe starts from: a checkpoint or run; or nothing, at the size tiny, small, base or "
            "large.  [default: small]",
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write.  [default: runs/RECIPE]")] = None,
    mix: Annotated[
        str | None, typer.Option(metavar="web=.3,syn=.7", help="Which text each row of a run in --pairs gets.")
    ] = None,
    sets: Annotated[list[str] | None, typer.Option("--set", metavar="A.B=C", help="Change one setting.")] = None,
    listed: Annotated[bool, typer.Option("--list", help="Show the recipes and leave.")] = False,
) -> None:
    """Run one recipe; --list shows them."""
    from capfilt import recipes
    from capfilt.errors import ConfigError
    from capfilt.ranks import from_environment

    if listed:
        print(table({**recipes.RECIPES, **recipes.TASKS}))
        return
    if recipe is None:
        raise ConfigError("train: name a recipe; capfilt train --list shows them")
    folder, chosen, data, val = out or Path("runs") / recipe, sets or [], data or [], val or []
    line, task = "", recipe in recipes.TASKS
    if task and (human or mix):
        raise ConfigError(f"--human and --mix belong to recipes of the cycle; {recipe} learns from --data alone")
    if not task and (images or init):
        raise ConfigError(f"--images and --init belong to the recipes {', '.join(recipes.TASKS)}")
    if task:
        line = told(recipes.tune(recipe, folder, chosen, data, val, images, init or "small"))
    else:
        chosen += [f"sources.mix={mix}"] * (mix is not None)
        recipes.run(recipe, folder, chosen, one("--pairs", data), human, one("--test", val))
    if not from_environment().rank:
        print(*filter(None, (line, folder)), sep="\n")


def table(functions: Mapping[str, Callable]) -> str:
    """Names beside the first lines of what they do."""
    width = max(map(len, functions))
    return "\n".join(f"{name:<{width}}  {first_line(f.__doc__)}" for name, f in functions.items())


def one(flag: str, values: list[str]) -> str | None:
    """The only value of a flag, if there is one."""
    from capfilt.errors import ConfigError

    if len(values) > 1:
        raise ConfigError(f"{flag} is given {len(values)} times; this recipe takes one")
    return values[0] if values else None


def told(results: dict) -> str:
    """What a task's run came to, on one line."""
    from capfilt.cli.evaluate import shown

    measured = {name: value for name, value in results.get("val", {}).items() if not isinstance(value, dict)}
    numbers = ", ".join(f"{name} {shown(value)}" for name, value in measured.items()) or "not measured (no --val)"
    return f"{results['task']}, {results['rows']} rows, {results['steps']} steps: {numbers}"


def first_line(text: str | None) -> str:
    """The first line of a docstring, or nothing."""
    return (text or "").strip().partition("\n")[0]
