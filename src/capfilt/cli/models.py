"""`capfilt models`: what can be loaded, here and elsewhere."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer


def models(
    runs: Annotated[Path, typer.Option(help="Where models of your own are looked for.")] = Path("runs"),
    as_json: Annotated[bool, typer.Option("--json", help="One JSON array instead of a table.")] = False,
) -> None:
    """List the models that can be loaded: the published ones, and those in a folder of runs.

    Nothing is downloaded. `cached` marks what the local hub cache has.
    """
    rows = [*_published(), *_own(runs)]
    if as_json:
        print(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    from rich.table import Table

    from capfilt.cli.evaluate import show

    grid = Table("name", "kind", "can", "tower", "px", "MB", "from", "licence", box=None, pad_edge=False)
    for column in (4, 5):
        grid.columns[column].justify = "right"
    grid.columns[0].no_wrap = True
    for row in rows:
        size = f"{row['bytes'] / 1e6:,.0f}"
        source = row["publisher"] + (", cached" if row["cached"] else "")
        about = (row["kind"], " ".join(row["abilities"]), row["tower"] or "-", str(row["px"]))
        grid.add_row(row["name"], *about, size, source, row["licence"] or "-")
    show(grid)


def _published() -> Iterator[dict[str, Any]]:
    from capfilt.weights import hub
    from capfilt.weights.catalog import CATALOG, LICENCE

    for e in CATALOG:
        yield {
            "name": e.name,
            "kind": e.kind,
            "abilities": list(e.abilities),
            "tower": e.tower,
            "px": e.px,
            "bytes": e.bytes,
            "publisher": e.publisher,
            "licence": LICENCE,
            "url": e.url,
            "cached": e.publisher == "hub" and hub.cached(e.name),
            "note": e.note,
        }


def _own(runs: Path) -> Iterator[dict[str, Any]]:
    """Models that a run wrote below a folder, by their config.json alone."""
    from capfilt.files import read_json
    from capfilt.weights.catalog import ABILITIES, ROLES

    roles = {frozenset(does): kind for kind, does in ROLES.items()}

    kinds = {"blip-vqa": "vqa", "blip-nlvr": "nlvr", "blip-visdial": "visdial"}
    for path in sorted(runs.rglob("model.safetensors")):
        if not (path.parent / "config.json").is_file():
            continue
        about = read_json(path.parent / "config.json")
        if not isinstance(about, dict) or "model" not in about:
            continue
        config = about["config"]
        kind = kinds.get(about["model"]) or roles.get(frozenset(config["roles"]), "blip")
        yield {
            "name": str(path.parent),
            "kind": kind,
            "abilities": list(ABILITIES.get(kind, ())),
            "tower": None,
            "px": config["vit"]["px"],
            "bytes": path.stat().st_size,
            "publisher": "this machine",
            "licence": None,
            "url": None,
            "cached": False,
            "note": f"capfilt {about.get('capfilt')}",
        }
