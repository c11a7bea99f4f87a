"""`capfilt caption`: what a model writes about pictures, a caption a line."""

import gc
import json
import os
import sys
from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from capfilt.abilities import Caption

MOST = 512  # pictures in one call of the model, for each of its devices
MANY = 64  # pictures; for fewer it does not pay to try another engine


class Precision(StrEnum):
    """What the model computes in."""

    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"
    int8 = "int8"


def caption(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Pictures, or folders of them.")],
    model: Annotated[
        str | None,
        typer.Option(envvar="CAPFILT_MODEL", help="A hub id, a checkpoint, or a folder that capfilt wrote."),
    ] = None,
    beams: Annotated[int | None, typer.Option(help="Search so wide; 1 takes the likeliest word.  [default: 3]")] = None,
    top_p: Annotated[float | None, typer.Option(help="Draw from the likeliest words of so much probability.")] = None,
    n: Annotated[int | None, typer.Option("--n", min=1, help="Captions a picture.")] = None,
    prompt: Annotated[str | None, typer.Option(help="What captions start with.  [default: the model's own]")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON object a line.")] = False,
    precision: Annotated[Precision, typer.Option(help="What the model computes in.")] = Precision.auto,
) -> None:
    """Write captions of pictures, one a line, behind the picture's path where there are several.

    A picture that cannot be used is told with its reason; having done the others, the verb leaves with 3. Several GPUs
    share many pictures; CAPFILT_DEVICE=cuda:0 keeps to one, CAPFILT_DEVICE=cuda:0,cuda:2 to those.
    """
    from capfilt.errors import ConfigError, DataError

    if model is None:
        example = "Salesforce/blip-image-captioning-base"
        raise ConfigError(f"caption: no model; give --model (a hub id such as {example}, a file or a folder)")
    paths = [path for given in images for path in _pictures(given)]
    gc.disable()
    from capfilt.predict.use import load

    gc.freeze()  # what torch brings is there to stay; looking through it again and again takes .15 s each time
    gc.enable()
    if len(paths) < MANY:
        os.environ.setdefault("CAPFILT_ENGINE", "torch")
    found = load(model, precision=precision.value)
    settings: dict[str, Any] = {
        name: value for name, value in (("beams", beams), ("top_p", top_p)) if value is not None
    }
    alone, failed = len(paths) == 1, 0
    for part in _growing(paths, MOST * len(found.devices)):
        for path, written in zip(part, found.caption(part, n=n, prompt=prompt, **settings), strict=True):
            captions = written if n else [written]
            why = captions[0].error
            if why is not None and alone and not as_json:
                raise DataError(why)
            failed += why is not None
            _tell(path, captions, alone, as_json)
    if failed:
        raise DataError(f"{failed} of {len(paths)} pictures have no caption")


def _pictures(given: Path) -> list[Path]:
    """A picture itself, or all that lie in a folder and below, in the order of their names."""
    from capfilt.errors import DataError
    from capfilt.inputs.images import SUFFIXES

    if not given.is_dir():
        return [given]
    found = sorted(path for path in given.rglob("*") if path.suffix.lower().lstrip(".") in SUFFIXES)
    if not found:
        raise DataError(f"{given}: no picture in this folder ({', '.join(SUFFIXES)})")
    return found


def _growing(paths: list[Path], most: int) -> Iterator[list[Path]]:
    """1, 2, 4, ... up to `most` at once: the first caption shows early, and long lists keep the machine busy."""
    at, size = 0, 1
    while at < len(paths):
        yield paths[at : at + size]
        at, size = at + size, min(2 * size, most)


def _tell(path: Path, captions: Sequence["Caption"], alone: bool, as_json: bool) -> None:
    why = captions[0].error
    if as_json:
        said = [{"caption": c.text, "score": round(c.score, 4)} for c in captions] if why is None else [{"error": why}]
        for row in said:
            print(json.dumps({"image": str(path), **row}, ensure_ascii=False), flush=True)
    elif why is not None:
        print(f"capfilt: {why}", file=sys.stderr)
    else:
        for one in captions:
            print(one.text if alone else f"{path}\t{one.text}", flush=True)
