"""`capfilt verify`: whether a published checkpoint, loaded here, says what its publisher says it says."""

from pathlib import Path
from typing import Annotated

import typer


def verify(
    name: Annotated[
        str, typer.Argument(metavar="MODEL", help="A hub id, or a .pth file or folder under its published name.")
    ],
    image: Annotated[
        Path | None, typer.Option(help="The authors' demo picture.  [default: downloaded from where they put it]")
    ] = None,
    vocab: Annotated[str | None, typer.Option(help="bert-base-uncased's vocabulary, where none is there.")] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of a hub id.")] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Take a hub id from the local cache only.")] = False,
) -> None:
    """Ask a published checkpoint about its authors' demo picture and compare with the published answers.

    Leaves with 1 if an answer differs.
    """
    from capfilt.errors import CheckFailed, ConfigError
    from capfilt.predict.use import load
    from capfilt.predict.verify import demo_picture
    from capfilt.predict.verify import verify as checks
    from capfilt.weights.catalog import CATALOG, entry

    local = Path(name)
    known = entry(local.name if local.suffix == ".pth" else f"Salesforce/{local.name}" if local.is_dir() else name)
    if known is None or not known.expected:
        those = ", ".join(e.name for e in CATALOG if e.expected)
        raise ConfigError(f"{name}: no published answers are known for it; they are for {those}")
    picture = demo_picture(image)
    px = 384 if known.kind == "pretrain" else None  # where the demo ran it
    model = load(name, revision=revision, offline=offline, vocab=vocab, px=px)
    wrong = 0
    for found in checks(model, known, picture):
        wrong += not found.right
        print(f"{'same' if found.right else 'DIFFERS'}  {found.task} {found.asked!r} ({found.source})")
        print(f"  expected  {found.expected}")
        print(f"  got       {found.got}", flush=True)
    if wrong:
        raise CheckFailed(f"{name}: {wrong} of {len(known.expected)} answers differ from the published ones")
