"""`capfilt diff`: what another run, model or policy made of the same rows."""

import json
from pathlib import Path
from typing import Annotated

import typer

from capfilt.cli.clean import AsJson, Run, codes


def diff(
    run: Run, other: Annotated[Path, typer.Argument(metavar="OTHER", help="Another.")], as_json: AsJson = False
) -> None:
    """Compare two runs row by row: decisions and texts that changed, scores that moved, rows only in one."""
    from capfilt.clean import diff as differences

    with codes():
        found = differences.diff(run, other)
    print(json.dumps(found, ensure_ascii=False) if as_json else differences.table(found))
