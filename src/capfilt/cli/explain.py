"""`capfilt explain`: where in a picture the model looks at each word."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import typer


class Asked(StrEnum):
    """What is explained: the match of picture and text, or how the text is written."""

    match = "match"
    caption = "caption"


ROLE: dict[Asked, Literal["look", "speak"]] = {Asked.match: "look", Asked.caption: "speak"}


def explain(
    image: Annotated[Path, typer.Argument(help="A picture.")],
    model: Annotated[str, typer.Option(help="A hub id, a checkpoint, or a folder that capfilt wrote.")],
    text: Annotated[str | None, typer.Argument(help="What to look for.  [default: what the model writes]")] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="The PNG to write.")] = Path("heat.png"),
    asked: Annotated[
        Asked | None, typer.Option("--of", help="What each word adds to.  [default: match, where the model can]")
    ] = None,
    layer: Annotated[
        int | None, typer.Option(help="Cross-attention to look at, from 0.  [default: the middle]")
    ] = None,
    vocab: Annotated[str | None, typer.Option(help="The model's vocabulary, where none is beside it.")] = None,
) -> None:
    """Draw where a model looks at each word of a text about a picture (Grad-CAM), as one PNG."""
    import numpy as np

    from capfilt.errors import ConfigError, DataError
    from capfilt.files import atomic
    from capfilt.inputs.images import decode, to_pixels
    from capfilt.predict.explain import explain as heat_of
    from capfilt.predict.predictor import Predictor
    from capfilt.predict.use import load
    from capfilt.report.heatmap import heat_png

    try:
        picture = decode(image.read_bytes())
    except OSError as error:
        raise DataError(f"{image}: {error.strerror}; give a picture") from None
    found = load(model, vocab=vocab)
    if not {"match", "caption"} & set(found.abilities):
        raise ConfigError(
            f"explain: {model} can {', '.join(found.abilities)}; a model that can match or caption is needed"
        )
    if text is None:
        text = found.caption(picture).text
        print(text)
    predictor, pixels = Predictor(found.model, found.tokenizer), to_pixels(picture, found.px)
    seen = heat_of(predictor, pixels, text, ROLE[asked] if asked else None, layer)
    if seen.cut:
        print(f"the last {seen.cut} words are beyond what the model reads and have no map")
    data = heat_png(np.asarray(picture), seen.words, seen.maps, f"score {seen.score:.2f}")
    atomic(out, lambda temporary: temporary.write_bytes(data))
    print(out)
