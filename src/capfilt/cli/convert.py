"""`capfilt convert`: a checkpoint of any origin in another layout."""

import warnings
from pathlib import Path
from typing import Annotated, Literal

import typer


def convert(
    source: Annotated[str, typer.Argument(metavar="IN", help="A hub id, a folder, or a .pth file.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A folder; or a .pth file with --layout official.")],
    layout: Annotated[
        Literal["capfilt", "huggingface", "official"], typer.Option(help="Whose files to write.")
    ] = "capfilt",
    vocab: Annotated[
        str | None,
        typer.Option(
            help="Vocabulary: vocab.txt, tokenizer.json, a folder or a hub id.  [default: beside the weights]"
        ),
    ] = None,
    px: Annotated[int | None, typer.Option(help="Image size to work at; positions are resized.")] = None,
    sets: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Change the model's config, as vit.eps=1e-5."),
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of a hub id.")] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Take a hub id from the local cache only.")] = False,
) -> None:
    """Read a checkpoint from anywhere and write it in another layout.

    Momentum copies and queues are left out. What a layout cannot express is an error, and nothing is written.
    """
    from capfilt.weights.checkpoint import open_checkpoint
    from capfilt.weights.store import save_as

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # what is warned of stands in the notes too
        opened = open_checkpoint(source, revision=revision, offline=offline, vocab=vocab, px=px, sets=sets or [])
    save_as(opened.model, opened.tokenizer, out, layout)
    for note in opened.origin.notes:
        print(note)
    print(f"{out}: {opened.origin.kind}, {layout} layout, from {opened.origin.layout}")
