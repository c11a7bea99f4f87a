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
    from capfilt.cli.sidecars import Form

MOST = 512  # pictures in one call of the model, for each of its devices
MANY = 64  # pictures; for fewer it does not pay to try another engine


class Precision(StrEnum):
    """What the model computes in."""

    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"
    int8 = "int8"


class Existing(StrEnum):
    """What becomes of a caption's file that is there."""

    skip = "skip"
    overwrite = "overwrite"
    append = "append"
    prepend = "prepend"


def caption(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Pictures, or folders of them.")],
    model: Annotated[
        str | None,
        typer.Option(
            envvar="CAPFILT_MODEL",
            help="A hub id, a checkpoint, or a folder that capfilt wrote.  [default: the demo's own captioner]",
        ),
    ] = None,
    beams: Annotated[int | None, typer.Option(help="Search so wide; 1 takes the likeliest word.  [default: 3]")] = None,
    top_p: Annotated[float | None, typer.Option(help="Draw from the likeliest words of so much probability.")] = None,
    n: Annotated[int | None, typer.Option("--n", min=1, help="Captions a picture.")] = None,
    prompt: Annotated[str | None, typer.Option(help="What captions start with.  [default: the model's own]")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON object a line.")] = False,
    precision: Annotated[Precision, typer.Option(help="What the model computes in.")] = Precision.auto,
    ext: Annotated[str | None, typer.Option(metavar=".txt", help="Write files of this suffix, print nothing.")] = None,
    prefix: Annotated[str | None, typer.Option(help="With --ext: what files start with, as it stands.")] = None,
    suffix: Annotated[str | None, typer.Option(help="With --ext: what they end with.")] = None,
    template: Annotated[str | None, typer.Option(help="With --ext: of {name} {dir} {caption}.")] = None,
    existing: Annotated[
        Existing | None, typer.Option(help="With --ext: what becomes of a file that is there.  [default: skip]")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="With --ext: a folder for the tree.  [default: beside pictures]")
    ] = None,
) -> None:
    """Write captions of pictures, one a line, behind the picture's path where there are several.

    With --ext .txt, a file beside each picture instead, in folders and those below. Pictures that have one are not
    looked at again, so the same command goes on where it was stopped; --existing has it otherwise, and then what was
    there before is kept as x.txt.bak. captions-failed.jsonl names pictures without caption.

    A picture that cannot be used is told with its reason; having done the others, the verb leaves with 3. Several GPUs
    share many pictures; CAPFILT_DEVICE=cuda:0 keeps to one, CAPFILT_DEVICE=cuda:0,cuda:2 to those.
    """
    from capfilt.cli.sidecars import Form
    from capfilt.errors import ConfigError

    how: dict[str, Any] = {"n": n, "prompt": prompt, "beams": beams, "top_p": top_p}
    how = {name: value for name, value in how.items() if value is not None or name in ("n", "prompt")}
    given = [pair for path in images for pair in _pictures(path)]
    form: dict[str, Any] = {"prefix": prefix, "suffix": suffix, "template": template}
    form |= {"existing": existing and existing.value}
    form = {name: value for name, value in form.items() if value is not None}
    if ext is None:
        if names := [f"--{name}" for name in (*form, *(["out"] if out else []))]:
            raise ConfigError(f"caption: {', '.join(names)} belong to files; name their suffix, as in --ext .txt")
        _print([path for path, _ in given], model, precision, how, as_json)
    elif as_json:
        raise ConfigError("caption: --json is for what is printed; with --ext, files are written")
    else:
        _write(given, Form(ext, **form), out, model, precision, how)


def _print(paths: list[Path], model: str | None, precision: Precision, how: dict[str, Any], as_json: bool) -> None:
    from capfilt.errors import DataError

    alone, failed = len(paths) == 1, 0
    for path, captions in _captioned(paths, model, precision, how):
        why = captions[0].error
        if why is not None and alone and not as_json:
            raise DataError(why)
        failed += why is not None
        _tell(path, captions, alone, as_json)
    if failed:
        raise DataError(f"{failed} of {len(paths)} pictures have no caption")


def _write(
    given: list[tuple[Path, Path]],
    form: "Form",
    out: Path | None,
    model: str | None,
    precision: Precision,
    how: dict[str, Any],
) -> None:
    from capfilt.cli.sidecars import Sidecars
    from capfilt.errors import DataError
    from capfilt.progress import Progress

    sidecars = Sidecars(given, form, out)
    todo = sidecars.to_do()
    with Progress("captions", len(given), start=len(given) - len(todo)) as bar:
        for done, (path, captions) in enumerate(_captioned(todo, model, precision, how), len(given) - len(todo) + 1):
            if captions[0].error is not None:
                sidecars.fail(path, captions[0].error)
            else:
                sidecars.write(path, [one.text for one in captions])
            bar.update(done)
    table = sidecars.finish()
    print(sidecars.told())
    if table:
        raise DataError(f"{len(sidecars.failed)} of {len(given)} pictures have no caption; {table} names them")


def _captioned(
    paths: list[Path], model: str | None, precision: Precision, how: dict[str, Any]
) -> Iterator[tuple[Path, Sequence["Caption"]]]:
    """Each picture with its captions, in order. No model is opened for none."""
    if not paths:
        return
    if model is None:
        from capfilt.recipes import own

        print(f"capfilt: no --model given: {own.about()}", file=sys.stderr)
        model = str(own.captioner())
    gc.disable()
    from capfilt.predict.use import load

    gc.freeze()  # what torch brings is there to stay; looking through it again and again takes .15 s each time
    gc.enable()
    if len(paths) < MANY:
        os.environ.setdefault("CAPFILT_ENGINE", "torch")
    found = load(model, precision=precision.value)
    for part in _growing(paths, MOST * len(found.devices)):
        for path, written in zip(part, found.caption(part, **how), strict=True):
            yield path, written if how["n"] else [written]


def _pictures(given: Path) -> list[tuple[Path, Path]]:
    """A picture itself, or all that lie in a folder and below, in the order of their names; each with that folder."""
    from capfilt.errors import DataError
    from capfilt.inputs.images import SUFFIXES

    if not given.is_dir():
        return [(given, given.parent)]
    found = sorted(path for path in given.rglob("*") if path.suffix.lower().lstrip(".") in SUFFIXES)
    if not found:
        raise DataError(f"{given}: no picture in this folder ({', '.join(SUFFIXES)})")
    return [(path, given) for path in found]


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
