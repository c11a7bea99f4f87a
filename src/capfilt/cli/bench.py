"""`capfilt bench`: how fast this machine works, every row against its peer."""

from pathlib import Path
from typing import Annotated

import typer


def bench(
    rows: Annotated[list[str] | None, typer.Option(help='Rows to time, as in "encode-fp32-b1 step-demo-fp32".')] = None,
    every: Annotated[bool, typer.Option("--all", help="Also the rows about single kernels and torch.compile.")] = False,
    rounds: Annotated[int | None, typer.Option(min=1, help="Rounds of each row, instead of 9, 5 or 3.")] = None,
    out: Annotated[Path, typer.Option(help="File to write; other rows of this machine stay in it.")] = Path(
        "bench/results.json"
    ),
) -> None:
    """Time encoding, captions, matching, CapFilt and a training step against their peers, by turns.

    Without --rows: the whole table, in at most 30 minutes on two quiet cores.
    """
    from capfilt.recipes import bench as recipe

    recipe.bench([name for words in rows or () for name in words.split()], every, rounds, out)
    print(out)
