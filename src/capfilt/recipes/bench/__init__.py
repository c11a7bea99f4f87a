"""`capfilt bench`: ours against its peers, by turns, on this machine.

    make bench                          # every row of the table in at most 30 minutes; writes bench/results.json
    make bench ROWS="encode-fp32-b1 greedy-fp32-b1"
    make bench ROWS="clean-default clean-fp32 clean-bf16 clean-int8 clean-demo"     # 20 minutes more (`cleaning`)

A row's ratio is the peer's seconds over ours: the median over rounds, with the least (`low`) and the greatest (`high`).
The peers of the table's CPU rows and of cleaning run in a process of their own (`other`).
"""

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from capfilt.errors import CheckFailed, ConfigError
from capfilt.files import read_json, write_json
from capfilt.recipes.bench.cleaning import CLEAN
from capfilt.recipes.bench.gpu import GPU
from capfilt.recipes.bench.kernels import EXTRA
from capfilt.recipes.bench.other import Other
from capfilt.recipes.bench.peers import Shelf
from capfilt.recipes.bench.rows import ROWS
from capfilt.recipes.bench.timing import Spare, Timed, by_turns, ratio, rounds_for
from capfilt.recipes.bench.work import CPU, DTYPES, RESULTS, SIDE, CannotRun, Row, Work, need, waited
from capfilt.runtime import device, machine, matmul_speed, square

TABLE = {**ROWS, **GPU}
APART = {**ROWS, **CLEAN}  # their peers run in a process of their own
ALL = {**TABLE, **CLEAN, **EXTRA}
LONG_S = 25  # of a round
SPARE_S = 90  # for doing disturbed rounds again


def bench(
    names: Sequence[str] = (),
    every: bool = False,
    rounds: int | None = None,
    out: Path = RESULTS,
    size: str = "base",
) -> dict[str, Any]:
    """Times the rows named, or the table, and writes `out`, where other rows of the same machine stay.

    every:  without names, also the rows of cleaning, of single kernels and of torch.compile.
    rounds: of each row; by default 9, 5 or 3, the longer a round takes the fewer.
    size:   of the models (`recipes.parity.SIZES`).

    → machine, limits (GFLOP/s of a large product), rows, skipped (row → what this machine lacks), failed (row → how the
    two sides differ). Raises ConfigError for an unknown row; CheckFailed, when all else is written, for a failed one.
    """
    unknown = sorted(set(names) - set(ALL))
    if unknown:
        raise ConfigError(f"bench: no row {', '.join(unknown)}; there are {', '.join(ALL)}")
    chosen = names or list(ALL if every else TABLE)
    results = _begun(out)
    spare = Spare(SPARE_S)
    for precision in DTYPES:
        try:
            need(precision)
            results["limits"][precision] = round(matmul_speed(CPU, DTYPES[precision], SIDE["cpu"]) / 1e9, 1)
        except CannotRun as error:
            print(f"limit of {precision}: {error}", flush=True)
    device()  # sees to threads and allocator, as for whoever loads a model
    with TemporaryDirectory() as folder, closing(Other(Path(folder), size)) as other:
        shelf = Shelf(Path(folder), size)
        for name in chosen:
            for part in ("rows", "skipped", "failed"):
                results[part].pop(name, None)
            try:
                apart = other if name in APART else None
                results["rows"][name] = row = measure(name, ALL[name], shelf, rounds, spare, apart)
                print(_told(name, row), flush=True)
            except CannotRun as error:
                results["skipped"][name] = str(error)
                print(f"{name}: skipped, {error}", flush=True)
            except CheckFailed as error:
                results["failed"][name] = str(error)
                print(f"{name}: FAILED, {error}", flush=True)
            write_json(out, results)
    failed = {name: why for name, why in results["failed"].items() if name in chosen}
    if failed:
        raise CheckFailed("bench: " + "; ".join(f"{name}: {why}" for name, why in failed.items()))
    return results


def measure(
    name: str, row: Row, shelf: Shelf, rounds: int | None, spare: Spare, other: Other | None = None
) -> dict[str, Any]:
    """One row: its sides compared once, then timed by turns; of several peers the one with the lower median counts.

    other: where the peers of a row of the table run; without, they run here.
    """
    work = row.build(shelf)
    runs = results = work.peers
    if other is not None:
        other.build(name)
        runs = {peer: partial(other.run, peer) for peer in work.peers}
        results = {peer: partial(other.result, peer) for peer in work.peers}
    calls: dict[str, Callable[[], Any]] = {"ours": work.ours, **runs}
    began, flop = time.perf_counter(), 0.0
    mine = work.ours()
    found = {peer: work.check(mine, result()) for peer, result in results.items()}
    if time.perf_counter() - began < LONG_S:  # else it is long even without what was made for the first call
        began = time.perf_counter()
        for call in calls.values():
            call()
    count = rounds or rounds_for(time.perf_counter() - began)
    if row.share is not None and work.flop is not None:
        product, flop = square(work.device, DTYPES[work.precision], SIDE[work.device.type])
        calls["limit"] = waited(product, work.device)
    timed = by_turns(name, calls, count, spare, lambda: time.process_time() + (other.cpu_s if other else 0))
    peer = min(work.peers, key=lambda peer: median(timed.seconds[peer]))
    if len(work.peers) > 1:
        found[peer] |= {"peers_s": {each: round(median(timed.seconds[each]), 4) for each in work.peers}}
    measured = {**ratio(timed, peer), **_rate(work, timed), "goal": row.goal, "peer": peer, **work.notes, **found[peer]}
    if flop and work.flop is not None:
        shares = [
            (work.flop / ours) / (flop / limit)
            for ours, limit in zip(timed.seconds["ours"], timed.seconds["limit"], strict=True)
        ]
        measured |= {"share_of_limit": round(median(shares), 3), "goal_of_share": row.share}
    return measured


def _rate(work: Work, timed: Timed) -> dict[str, float]:
    """Images or pairs a second of ours, by the median of the rounds."""
    seconds = median(timed.seconds["ours"])
    return {f"{what}_per_s": round(work.notes[what] / seconds, 2) for what in ("images", "pairs") if what in work.notes}


def _begun(out: Path) -> dict[str, Any]:
    """What was measured before on this machine, or nothing yet."""
    fresh: dict[str, Any] = {"machine": machine(), "limits": {}, "rows": {}, "skipped": {}, "failed": {}}
    if not out.exists():
        return fresh
    before = read_json(out)
    if before.get("machine") != fresh["machine"]:
        print(f"{out}: of another machine; it is written anew", flush=True)
        return fresh
    return fresh | before


def _told(name: str, row: dict[str, Any]) -> str:
    goal = "" if row["goal"] is None else f", goal {row['goal']}"
    share = f"; {row['share_of_limit']:.0%} of the limit" if "share_of_limit" in row else ""
    disturbed = f"; {row['disturbed']} of {row['rounds']} rounds disturbed by others" if row["disturbed"] else ""
    return (
        f"{name}: {row['ratio']:.2f}x ({row['low']:.2f} to {row['high']:.2f}{goal}) {row['peer']}: "
        f"{row['ours_s']:.3f} s against {row['peer_s']:.3f} s{share}{disturbed}"
    )
