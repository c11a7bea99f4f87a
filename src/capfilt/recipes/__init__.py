"""Recipes: one function, one run. A docstring says what it costs and what to expect; `docs/numbers.md` has the rest."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from capfilt.bootstrap.config import BootstrapConfig
from capfilt.recipes.demo import demo, smoke
from capfilt.recipes.real import flickr, paper
from capfilt.recipes.tasks import TASKS, TaskSources

__all__ = ["RECIPES", "TASKS", "run", "tune"]

RECIPES: dict[str, Callable[..., BootstrapConfig]] = {"demo": demo, "smoke": smoke, "flickr": flickr, "paper": paper}


def run(
    name: str,
    out: Path,
    sets: Iterable[str] = (),
    pairs: str | None = None,
    human: str | None = None,
    test: str | None = None,
) -> dict:
    """Pre-trains one model by the recipe `name` into `out` and evaluates it; returns its scores.

    Raises ConfigError for an unknown recipe or setting.
    """
    from capfilt.bootstrap.rounds import pretrain
    from capfilt.config import with_sets
    from capfilt.errors import ConfigError
    from capfilt.ranks import from_environment

    if name not in RECIPES:
        raise ConfigError(f"recipe {name!r} is not one of {', '.join((*RECIPES, *TASKS))}")
    return pretrain(with_sets(RECIPES[name](pairs=pairs, human=human, test=test), sets), out, from_environment())


def tune(
    name: str,
    out: Path,
    sets: Iterable[str] = (),
    data: Sequence[str] = (),
    val: Sequence[str] = (),
    images: str | None = None,
    init: str = "small",
) -> dict:
    """Trains one model for one task by the recipe `name` into `out` and measures it; returns what it wrote of that.

    Raises ConfigError for an unknown setting, or where there is nothing to learn from.
    """
    from capfilt.errors import ConfigError
    from capfilt.ranks import from_environment
    from capfilt.recipes import tasks

    if not data:
        raise ConfigError(f"{name}: nothing to learn from; give --data, and --val to measure with")
    return tasks.tune(name, TaskSources(tuple(data), tuple(val), images, init), out, sets, from_environment())
