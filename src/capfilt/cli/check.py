"""`capfilt check`: what of a collection can be read; `capfilt dedup`: which of its images come more than once."""

import json
from pathlib import Path
from typing import Annotated

import typer

from capfilt.cli.clean import AsJson, FailRate, codes

GROUP = b'{"keep": '  # begins what dedup writes
In = Annotated[str, typer.Argument(metavar="IN", help="A folder, table, shards, hf:owner/name.")]


def check(source: In, as_json: AsJson = False, max_fail_rate: FailRate = 1.0) -> None:
    """Read every row and decode every image of a collection; say what cannot be used or is odd. Writes nothing."""
    from capfilt.recipes import looking

    with codes():
        found = looking.check(source)
        if as_json:
            print(json.dumps(found, ensure_ascii=False))
        else:
            print("\n".join(looking.checked(found)))
        looking.within(found, max_fail_rate)


def dedup(
    source: In,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Also write the groups, a JSON object a line.")
    ] = None,
    bits: Annotated[int, typer.Option(min=0, max=16, help="Bits of 64 by which near duplicates may differ.")] = 3,
    exact: Annotated[bool, typer.Option("--exact", help="Only files that are the same byte by byte.")] = False,
    as_json: AsJson = False,
) -> None:
    """Find images that come more than once, the same bytes or the same look; say which of each group to keep."""
    from capfilt.files import write_jsonl
    from capfilt.recipes import looking

    with codes():
        if out is not None:
            _check_place(out)
        groups = looking.duplicates(source, bits, exact)
        if out is not None:
            write_jsonl(out, groups)
    extra = sum(len(group["others"]) for group in groups)
    if as_json:
        print(json.dumps({"groups": len(groups), "duplicates": extra, "of": groups}, ensure_ascii=False))
        return
    for group in groups:
        print(group["keep"], *group["others"], sep="\t")
    print(f"{extra} duplicates in {len(groups)} groups")


def _check_place(out: Path) -> None:
    """Groups that were written before may be written anew; nothing else is written over, no link and no device."""
    from capfilt.errors import ConfigError

    if out.is_symlink() or (out.exists() and not out.is_file()):
        raise ConfigError(f"{out}: is a folder, link or device, which a file would replace. Name a plain file.")
    if out.exists():
        with out.open("rb") as file:
            start = file.read(len(GROUP))
        if start and start != GROUP:
            raise ConfigError(f"{out}: there is a file that dedup has not written. Choose another --out.")
