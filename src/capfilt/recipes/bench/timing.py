"""Two or more ways of doing one piece of work, timed by turns in one process on a quiet machine."""

import gc
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from capfilt.progress import Progress

FOREIGN, TICKS_S = 0.1, 0.03  # a round is disturbed when others used more than this share of it, and than clock ticks


@dataclass
class Spare:
    """Seconds left for doing disturbed rounds again, shared by all rows of a run so that the whole stays bounded."""

    seconds: float


@dataclass
class Timed:
    """Seconds of each work, round by round, and how many of these rounds others disturbed."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    disturbed: int = 0


def rounds_for(seconds: float) -> int:
    """How many rounds a row gets whose round takes so long: with these the whole table takes less than 30 minutes."""
    return 9 if seconds < 3 else 5 if seconds < 25 else 3


def by_turns(
    name: str,
    works: Mapping[str, Callable[[], Any]],
    rounds: int,
    spare: Spare,
    own_s: Callable[[], float] | None = None,
) -> Timed:
    """Runs each work once a round. A round in which others used the processor is done again while `spare` lasts.

    own_s: processor seconds that the works have used so far; by default those of this process.
    """
    own_s = own_s or time.process_time
    timed = Timed({key: [] for key in works})
    done, again = 0, 2 * rounds
    with Progress(name, rounds) as bar:
        while done < rounds:
            gc.collect()
            busy, own, taken = busy_s(), own_s(), {}
            for key, work in works.items():
                began = time.perf_counter()
                work()
                taken[key] = time.perf_counter() - began
            whole = sum(taken.values())
            if (busy_s() - busy) - (own_s() - own) > max(FOREIGN * whole, TICKS_S):
                if again and spare.seconds > whole:
                    again, spare.seconds = again - 1, spare.seconds - whole
                    continue
                timed.disturbed += 1
            for key, seconds in taken.items():
                timed.seconds[key].append(seconds)
            done += 1
            bar.update(done)
    return timed


def ratio(timed: Timed, peer: str) -> dict[str, Any]:
    """A row's numbers: medians of seconds, median, least and greatest of the per-round ratios `peer` over `ours`."""
    ours, theirs = timed.seconds["ours"], timed.seconds[peer]
    ratios = [b / a for a, b in zip(ours, theirs, strict=True)]
    return {
        "ours_s": round(median(ours), 4),
        "peer_s": round(median(theirs), 4),
        "ratio": round(median(ratios), 3),
        "low": round(min(ratios), 3),
        "high": round(max(ratios), 3),
        "rounds": len(ratios),
        "disturbed": timed.disturbed,
    }


def busy_s() -> float:
    """Processor seconds that everyone has used since the machine started; 0 where that is not told."""
    try:
        with open("/proc/stat", encoding="ascii") as handle:
            fields = handle.readline().split()[1:]
    except OSError:
        return 0.0
    ticks = [int(f) for f in fields]
    return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")
