"""`capfilt report`: write a run's page again from what the run left behind."""

from pathlib import Path
from typing import Annotated

import typer


def report(run: Annotated[Path, typer.Argument(help="A folder that bootstrap or clean wrote.")]) -> None:
    """Write a run's page again."""
    if (run / "run.json").is_file():
        from capfilt.clean import deciding
        from capfilt.cli.clean import codes

        with codes():
            print(deciding.tell(run))
        return
    from capfilt.bootstrap import rounds

    print(rounds.rewrite_report(run))
