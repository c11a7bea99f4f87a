"""`capfilt bootstrap`: the whole loop, from noisy pairs to a report."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from capfilt.cli.evaluate import show

if TYPE_CHECKING:
    from capfilt.bootstrap.config import Variant


class Arm(StrEnum):
    """What cleans the pairs that a model is trained on, as in the paper's first table, and three controls."""

    none = "none"
    captioner = "captioner"
    filter = "filter"
    both = "both"
    human = "human"
    share = "share"
    repeated = "repeated"


USUAL = (Arm.none, Arm.both)  # compared in every run
VARIANT: dict[Arm, "Variant"] = {
    Arm.none: "noisy",
    Arm.captioner: "captioner",
    Arm.filter: "filter",
    Arm.both: "bootstrapped",
    Arm.human: "human",
    Arm.share: "share",
    Arm.repeated: "repeated",
}


def bootstrap(
    pairs: Annotated[str | None, typer.Option(help="Noisy image-text pairs. Without it: drawn scenes.")] = None,
    human: Annotated[
        str | None, typer.Option(help="Clean pairs that captioner and filter are tuned on; --pairs needs them.")
    ] = None,
    test: Annotated[
        str | None, typer.Option(help="Clean pairs to measure with.  [default: a tenth of --human, held out]")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write.  [default: runs/demo or runs/<pairs>]")] = None,
    recipe: Annotated[str, typer.Option(help="Sizes and schedule: demo, smoke, flickr or paper.")] = "demo",
    seed: Annotated[int, typer.Option(help="Same seed, machine and number of threads: same run.")] = 0,
    sets: Annotated[list[str] | None, typer.Option("--set", metavar="A.B=C", help="Change one setting.")] = None,
    ablate: Annotated[
        list[Arm] | None,
        typer.Option(
            metavar="ARM",
            help="Also train on what one part alone leaves (captioner, filter) or on a control "
            "(human, share, repeated). none and both are always there.",
        ),
    ] = None,
) -> None:
    """Train on noisy pairs, clean them, train again, compare.

    Trains BLIP on the pairs, tunes a captioner and a filter on the human ones, rewrites the pairs with both, trains
    again on the result and writes a report of what changed. Stopped, it goes on where it was.
    """
    from capfilt.bootstrap import rounds
    from capfilt.config import with_sets
    from capfilt.errors import ConfigError
    from capfilt.ranks import from_environment
    from capfilt.recipes import RECIPES
    from capfilt.report.page import terminal_table

    if recipe not in RECIPES:
        raise ConfigError(f"--recipe {recipe!r} is not one of {', '.join(RECIPES)}")
    config = with_sets(RECIPES[recipe](pairs=pairs, human=human, test=test, seed=seed), sets or [])
    variants = tuple(dict.fromkeys(VARIANT[arm] for arm in (*USUAL, *(ablate or ()))))
    folder = out or default_out(pairs)
    ranks = from_environment()
    result = rounds.bootstrap(config, folder, variants, ranks)
    if not ranks.rank:
        show(terminal_table(result))
        print(folder / "report.html")


def default_out(pairs: str | None) -> Path:
    """Where a run goes when nobody says: runs/demo, or runs/<name of the pairs without its suffix>."""
    return Path("runs") / (Path(pairs).resolve().stem if pairs else "demo")
