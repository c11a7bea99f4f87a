"""`capfilt decide`: another rule over a run's scores, in seconds; no model is loaded."""

import json
from typing import Annotated

import typer

from capfilt.cli.clean import AsJson, By, PolicyName, Run, Sets, Threshold, Top, codes, policy_of, show


def decide(
    run: Run,
    policy: PolicyName = None,
    threshold: Threshold = None,
    top: Top = None,
    by: By = None,
    fit: Annotated[
        bool, typer.Option("--fit", help="Place the threshold by what people said in capfilt review.")
    ] = False,
    precision: Annotated[
        float | None, typer.Option(min=0, max=1, help="With --fit: the lowest bar of that precision, not the best F1.")
    ] = None,
    sets: Sets = None,
    as_json: AsJson = False,
) -> None:
    """Decide anew what becomes of every row, and write the page again. Without flags as it was decided last.

    --set names the other settings of a policy: score (itm, itc, joint), weight, margin.
    """
    from capfilt.clean import deciding

    with codes():
        given = policy_of(policy, threshold, top, by)
        counts, told = deciding.decide(run, given, sets or [], fit or precision is not None, precision)
    if as_json:
        print(json.dumps(counts))
        return
    for line in told:
        print(line)
    show(counts)
