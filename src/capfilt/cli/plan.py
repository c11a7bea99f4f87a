"""`capfilt plan`: what cleaning a collection would take, before it is begun."""

import dataclasses
import json
from typing import TYPE_CHECKING, Annotated

import typer

from capfilt.cli.clean import AsJson, Sets, codes, config_of, named_of

if TYPE_CHECKING:
    from capfilt.recipes.plan import Plan


def plan(
    source: Annotated[str, typer.Argument(metavar="IN", help="What capfilt clean would read.")],
    captioner: Annotated[str | None, typer.Option(help="Model that writes.  [default: the demo's own]")] = None,
    judge: Annotated[str | None, typer.Option("--filter", help="Model that judges.  [default: the demo's own]")] = None,
    sample: Annotated[int, typer.Option(min=1, help="Rows to measure.")] = 100,
    devices: Annotated[int, typer.Option(min=1, help="Machines like this one that would share the work.")] = 1,
    price: Annotated[float | None, typer.Option(min=0, help="Of each an hour, in any currency.")] = None,
    n: Annotated[int, typer.Option("--n", min=1, help="Candidates an image.")] = 1,
    seed: Annotated[int, typer.Option(help="Of the sample and its captions.")] = 0,
    precision: Annotated[str, typer.Option(help="auto, fp32, bf16, or int8 in the image tower.")] = "auto",
    fetch: Annotated[
        list[str] | None, typer.Option("--fetch", metavar="HOST", help="Fetch image URLs of this host; any: all.")
    ] = None,
    sets: Sets = None,
    as_json: AsJson = False,
) -> None:
    """Say how many rows a collection has, how many can be read, and what cleaning it would take.

    Time, memory, disk and cost follow from a sample that goes through the very models. Nothing is written.
    """
    from capfilt.recipes.plan import plan as made

    with codes():
        named = named_of(captioner, judge)
        found = made(config_of(source, named, n, seed, precision, None, fetch, sets), sample, devices, price)
    if as_json:
        print(json.dumps(dataclasses.asdict(found), ensure_ascii=False))
    else:
        for name, told in lines(found).items():
            print(f"{name:<12} {told}")


def lines(found: "Plan") -> dict[str, str]:
    """A plan in words."""
    known = {"all": "", "estimated": ", estimated from some of the files", "at least": " at least"}
    reasons = ", ".join(f"{reason} {rows}" for reason, rows in found.reasons.items())
    told = {
        "rows": f"{found.rows:,}{known[found.counted]}",
        "readable": f"{found.readable:.0%} of {found.sample} sampled" + (f"; not: {reasons}" if reasons else ""),
        "ruled out": f"{found.ruled_out:.0%}, before any model works; duplicates show only in the whole",
        **{name: f"{_short(rate)} rows/s" for name, rate in found.rows_per_s.items()},
        "time": f"{_hours(found.hours)} on this machine",
        "memory": f"{found.memory_mib:,} MiB",
        "disk": f"{_short(found.disk_mib)} MiB",
    }
    if found.devices > 1:
        told["time"] += f", {_hours(found.hours_each)} on {found.devices} like it"
    if found.cost is not None:
        told["cost"] = f"{found.cost:,.2f} at {found.price:g} an hour"
    return told


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}"


def _hours(hours: float) -> str:
    return f"{hours:,.1f} hours" if hours >= 1 else f"{max(hours * 60, 0.1):.1f} minutes"
