"""`capfilt report`: write a run's page again from what the run left behind."""

from pathlib import Path
from typing import Annotated

import typer


def report(run: Annotated[Path, typer.Argument(help="A folder that bootstrap wrote.")]) -> None:
    """Write a run's report.html again."""
    from capfilt.bootstrap import rounds

    print(rounds.rewrite_report(run))
