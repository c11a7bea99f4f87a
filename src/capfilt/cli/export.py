"""`capfilt export`: a cleaning run for whoever trains on it, or a model for other engines than torch."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

RUN = ("decisions.parquet", "rows")  # what only a run of `capfilt clean` holds


class Format(StrEnum):
    """What can be written: of a run, all but onnx."""

    imagefolder = "imagefolder"
    webdataset = "webdataset"
    parquet = "parquet"
    jsonl = "jsonl"
    csv = "csv"
    sidecar = "sidecar"
    onnx = "onnx"


def export(
    what: Annotated[str, typer.Argument(metavar="RUN|MODEL", help="Folder of capfilt clean; or a model.")],
    place: Annotated[str | None, typer.Argument(metavar="[OUT]", help="The same as --out.")] = None,
    out: Annotated[str | None, typer.Option("-o", "--out", help="File (jsonl, csv) or folder; s3://… too.")] = None,
    form: Annotated[Format | None, typer.Option("--format", help="What to write; onnx needs capfilt[onnx].")] = None,
    mix: Annotated[
        str | None, typer.Option(metavar="web=.3,syn=.7", help="Which text a row gets where both kinds are kept.")
    ] = None,
    decision: Annotated[
        str | None,
        typer.Option(
            metavar="D,D", help="Of keep, replace, drop, failed.  [default: all in jsonl and csv, else keep,replace]"
        ),
    ] = None,
    strip_gps: Annotated[bool, typer.Option("--strip-gps", help="Overwrite coordinates in EXIF and XMP.")] = False,
    vocab: Annotated[str | None, typer.Option(help="The model's vocabulary, where none is beside it.")] = None,
) -> None:
    """Write a run's rows, images and texts in a layout that trainers read; or a model as ONNX, compared with torch.

    jsonl and csv have every row, sorted by id; in csv, text that a spreadsheet would run as a formula begins with a '.
    The other formats have the rows that were kept or replaced, images byte for byte as they are, and go on where they
    were stopped. Rows whose image is not there any more are named in OUT/export.json; then the verb leaves with 3.

    With --mix, each row draws by a number of its own between the texts that are kept for it.
    """
    from capfilt.errors import ConfigError

    if (place is None) == (out is None):
        raise ConfigError("export: say once where to: capfilt export RUN --format jsonl -o OUT")
    target = str(out or place)
    if any((Path(what) / name).exists() for name in RUN):
        if vocab is not None or form in (None, Format.onnx):
            raise ConfigError(f"export: {what} is a cleaning run; give --format {'|'.join(list(Format)[:-1])}")
        _run(Path(what), target, form, mix, decision, strip_gps)
    else:
        given = {"--mix": mix, "--decision": decision, "--strip-gps": strip_gps}
        if names := [name for name, value in given.items() if value]:
            raise ConfigError(f"export: {', '.join(names)} belong to cleaning runs; {what} is none")
        if form not in (None, Format.onnx):
            raise ConfigError(f"export: --format {form} is for cleaning runs; {what} is none (models: onnx)")
        _model(what, Path(target), vocab)


def _run(run: Path, out: str, form: Format, mix: str | None, decision: str | None, strip_gps: bool) -> None:
    from capfilt.clean.export import TABLES, Choice, export_folder, export_table
    from capfilt.data.run_source import Mix
    from capfilt.errors import ConfigError, DataError

    decisions = tuple(word.strip() for word in decision.split(",")) if decision is not None else None
    choice = Choice(decisions, Mix.of(mix) if mix is not None else None)
    if form in TABLES:
        if strip_gps:
            raise ConfigError(f"export: {form} holds no images; --strip-gps belongs to formats that do")
        print(f"{out}  {export_table(run, out, form, choice)} rows")
        return
    account = export_folder(run, out, form, choice, strip_gps)
    print(f"{out}  {account['rows']} rows")
    if failed := account["failed"]:
        first = next(row for part in account["parts"] for row in part["failed"])
        named = f"{out}/export.json names them; the first: {first['error']}"
        raise DataError(f"{failed} rows have no image any more. {named}")


def _model(name: str, out: Path, vocab: str | None) -> None:
    from capfilt.errors import ConfigError
    from capfilt.models.blip import Blip
    from capfilt.predict.export import export_onnx
    from capfilt.predict.use import load

    found = load(name, vocab=vocab)
    if not isinstance(found.model, Blip):
        raise ConfigError(f"export: {name} can {', '.join(found.abilities)}; only models that match or caption so far")
    about = export_onnx(found.model, found.tokenizer, out)
    for part in about["parts"].values():
        print(f"{out / part['file']}  differs from torch by {part['difference']:.1e}")
