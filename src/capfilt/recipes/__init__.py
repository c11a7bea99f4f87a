"""Recipes: one function, one run. A docstring says what it costs and what to expect; `docs/numbers.md` has the rest."""

from collections.abc import Callable, Iterable
from pathlib import Path

from capfilt.bootstrap.config import BootstrapConfig
from capfilt.recipes.demo import demo, smoke
from capfilt.recipes.real import flickr, paper

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
        raise ConfigError(f"recipe {name!r} is not one of {', '.join(RECIPES)}")
    return pretrain(with_sets(RECIPES[name](pairs=pairs, human=human, test=test), sets), out, from_environment())
