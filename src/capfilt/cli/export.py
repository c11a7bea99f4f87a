"""`capfilt export`: a model for other engines than torch."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Format(StrEnum):
    """What can be written."""

    onnx = "onnx"


def export(
    model: Annotated[str, typer.Argument(help="A hub id, a checkpoint, or a folder that capfilt wrote.")],
    out: Annotated[Path, typer.Argument(help="Folder to write.")],
    form: Annotated[Format, typer.Option("--format", help="What to write; needs capfilt[onnx].")] = Format.onnx,
    vocab: Annotated[str | None, typer.Option(help="The model's vocabulary, where none is beside it.")] = None,
) -> None:
    """Write image encoder, text encoder, matcher and speaker as ONNX, each compared with torch."""
    from capfilt.errors import ConfigError
    from capfilt.models.blip import Blip
    from capfilt.predict.export import export_onnx
    from capfilt.predict.use import load

    found = load(model, vocab=vocab)
    if not isinstance(found.model, Blip):
        raise ConfigError(f"export: {model} can {', '.join(found.abilities)}; only models that match or caption so far")
    about = export_onnx(found.model, found.tokenizer, out)
    for part in about["parts"].values():
        print(f"{out / part['file']}  differs from torch by {part['difference']:.1e}")
