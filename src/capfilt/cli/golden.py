"""`capfilt golden`: our numbers against those of the original implementations."""

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer


def golden(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Holds <system>/<case>/case.json.")],
    vocab: Annotated[
        Path | None, typer.Option(envvar="CAPFILT_VOCAB", help="bert-base-uncased's vocab.txt, for tokenised text.")
    ] = None,
) -> None:
    """Check our numbers against reference cases.

    Leaves with 1 if a case fails or DIR holds none.
    """
    from capfilt.errors import CheckFailed
    from capfilt.evaluate.golden import check

    count: Counter[str] = Counter()
    for line in check(folder, vocab):
        worst = "-" if line.worst is None else f"{line.worst:.1e}"
        print(f"{line.status:<13}  {line.name:<34}  {worst:>7}  {line.detail}".rstrip(), flush=True)
        count[line.status] += 1
    if not count:
        raise CheckFailed(f"golden: no case under {folder}; give the folder that holds <system>/<case>/case.json")
    summary = ", ".join(f"{number} {status}" for status, number in sorted(count.items()))
    if count["fail"]:
        raise CheckFailed(f"golden: {summary}")
    print(summary)
