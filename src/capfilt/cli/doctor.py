"""`capfilt doctor`: what this installation is, what it lacks, and how fast it works."""

import dataclasses
import json
from typing import Annotated, Any

import typer


def doctor(
    speed: Annotated[bool, typer.Option("--speed", help="Also time a model, in less than a minute.")] = False,
    model: Annotated[
        str | None, typer.Option(help="Checkpoint to time.  [default: random weights, nothing is downloaded]")
    ] = None,
    size: Annotated[str, typer.Option(help="Of the random weights: tiny, demo, base or large.")] = "base",
    px: Annotated[int | None, typer.Option(min=16, help="Side of the images.  [default: 384, or the model's]")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Say what this installation is and can do; with --speed also how fast it works, and why.

    Of each thing: ok, missing (an extra that can be installed), or a note. Nothing is changed or downloaded, but a hub
    id that --model names.
    """
    from capfilt.recipes import doctor as recipe

    found: dict[str, Any] = {"findings": [dataclasses.asdict(finding) for finding in recipe.findings()]}
    if not as_json:
        for row in found["findings"]:
            print(f"{row['state']:7}  {row['name']:12}  {row['told']}", flush=True)
    if speed or model:
        found["speed"] = recipe.speed(model, size, px)
    if as_json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
    elif "speed" in found:
        print()
        _tell(found["speed"])


def _tell(speed: dict[str, Any]) -> None:
    threads = f"{speed['threads']} on {speed['usable_cores']} usable cores"
    lines = {
        "model": f"{speed['model']}, {speed['px']} px",
        "device": speed["device"],
        "precision": f"{speed['precision']}: {speed['why']}",
        "image tower": speed["engine"],
        "compiled": speed["compiled"],
        "threads": threads,
        "allocator": speed["allocator"],
        **{f"limit, {name}": f"{limit:.1f} GFLOP/s" for name, limit in speed["limit_gflops"].items()},
    }
    for name, rate in speed["images_per_s"].items():
        share = speed["share_of_limit"].get(name)
        lines[name] = f"{rate:.3g} images/s" + (f", {share:.0%} of the limit" if share is not None else "")
    for name, told in lines.items():
        print(f"{name:24}  {told}")
