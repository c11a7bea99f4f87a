"""Hostile images through the decode workers, hostile tars through the readers: neither may stop, hang or bloat a run.

    python -m capfilt.recipes.fuzz                                      # 100,000 images, 10,000 tars
    python -m capfilt.recipes.fuzz --images 64 --first 4608 --tars 0    # some again, as a violation names them

Some eight minutes on two cores that others share, and 3 GB for drawing the largest. Prints JSON: what became of the
items, the slowest, the most memory, and every violation with the seed and the number of its item (`recipes.mutants`
makes it again); ends with 1 if there is one. Demanded:

    every image ends as pixels or with a known reason, every row of a tar as a pair or an image or with one
    no item takes longer than 5 s, and no process dies
    no worker's memory grows above 1.5 GB, not even for whole images as large as a header may claim, in every mode
    (giants: these alone may take longer)
"""

import argparse
import itertools
import json
import multiprocessing
import os
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from capfilt.clean.intake import tasks
from capfilt.data.decoders import Decoded, Decoders, Reading
from capfilt.data.refs import Images
from capfilt.data.sources import Failure, open_source
from capfilt.errors import DataError, ImageError
from capfilt.recipes import mutants
from capfilt.runtime import usable_cores

PX = 16  # that pictures are squashed to
LIMIT_S, LIMIT_BYTES = 5.0, 1.5e9
PATIENCE = 20  # times the limit that may go by: what counts is a process's own time, however many share the machine
GIANT_PX = 7990  # a side: just below the limit of 64 Mpx
TOGETHER = 64  # items between two looks at memory
IMAGE_REASONS = {"empty", "not_an_image", "truncated", "too_large", "unreadable"}
ROW_ENDS = {
    "a pair",
    "an image",
    "no_text",
    "no_image",
    "missing_file",
    "outside_folder",
    "not_a_file",
    "url",
    "empty",
    "too_large",
    "unreadable",
    "truncated",
    "duplicate_key",
    "bad_row",
}


@dataclass
class Found:
    """What became of a number of items.

    outcomes:   how many ended how: pixels or pairs, or the reason.
    slowest_s:  the longest that one took, of processor time where it was long.
    peak_bytes: the most memory that a worker has held.
    violations: a line each.
    """

    items: int = 0
    seconds: float = 0.0
    outcomes: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0
    peak_bytes: int = 0
    violations: list[str] = field(default_factory=list)

    def add(self, other: "Found", name: str) -> None:
        """Takes in what became of some more, and looks at their memory."""
        self.items += other.items
        self.outcomes += other.outcomes
        self.slowest_s = max(self.slowest_s, other.slowest_s)
        if other.peak_bytes > max(LIMIT_BYTES, self.peak_bytes):
            self.violations.append(f"{name}: a worker came to hold {other.peak_bytes / 1e6:.0f} MB")
        self.peak_bytes = max(self.peak_bytes, other.peak_bytes)
        self.violations += other.violations

    def told(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "items": self.items,
            "seconds": round(self.seconds, 1),
            "per_second": round(self.items / max(self.seconds, 1e-9)),
            "outcomes": dict(self.outcomes.most_common()),
            "slowest_s": round(self.slowest_s, 3),
            "peak_mb": round(self.peak_bytes / 1e6),
        }


def fuzz_images(numbers: range, seed: int = 0, seconds: float = float("inf"), workers: int | None = None) -> Found:
    """Decodes damaged images, until all are done or the time is over."""
    workers, before, end = workers or usable_cores(), _children(), time.monotonic() + seconds
    with Decoders(PX, Reading(workers, limit_s=PATIENCE * LIMIT_S)) as decoders, ThreadPoolExecutor(workers) as threads:

        def some(part: range) -> tuple[Found, str]:
            found = Found()
            for number in _in_time(part, end):
                _decode(decoders, mutants.image(seed, number), f"seed {seed}, image {number}", found)
            found.peak_bytes = max(map(_peak_bytes, _children() - before), default=0)
            return found, f"seed {seed}, images {part.start} to {part.stop - 1}"

        return _gathered(threads.map(some, _parts(numbers)))


def fuzz_giants(side: int = GIANT_PX) -> Found:
    """Decodes whole images of that many pixels a side, one in every format and mode, each in a worker of its own."""

    def each() -> Iterator[tuple[Found, str]]:
        for name, data in mutants.drawn(side, side):
            found = _alone(data, name)
            if found.outcomes["pixels"] != 1:
                found.violations.append(f"{name} of {side} px a side: {dict(found.outcomes)}")
            yield found, name

    return _gathered(each())


def fuzz_tars(numbers: range, seed: int = 0, seconds: float = float("inf"), workers: int | None = None) -> Found:
    """Reads damaged tars, until all are done or the time is over."""
    end = time.monotonic() + seconds
    with ProcessPoolExecutor(workers or usable_cores(), multiprocessing.get_context("fork")) as pool:
        try:
            return _gathered(pool.map(_read_tars, ((seed, part, end) for part in _parts(numbers))))
        except BrokenProcessPool as error:
            return Found(violations=[f"seed {seed}, a tar of {numbers}: {error}"])


def _gathered(parts: Iterator[tuple[Found, str]]) -> Found:
    begin, found = time.perf_counter(), Found()
    for part, name in parts:
        found.add(part, name)
    found.seconds = time.perf_counter() - begin
    return found


def _parts(numbers: range) -> Iterator[range]:
    return (numbers[start : start + TOGETHER] for start in range(0, len(numbers), TOGETHER))


def _in_time(numbers: range, end: float) -> Iterator[int]:
    return itertools.takewhile(lambda number: time.monotonic() < end, numbers)


def _decode(decoders: Decoders, data: bytes, name: str, found: Found) -> None:
    begin = time.perf_counter()
    (ended,) = decoders.decode([data])
    took = time.perf_counter() - begin
    if took < LIMIT_S / 10 or (isinstance(ended, ImageError) and ended.reason == "decoder_crash"):
        found.slowest_s = max(found.slowest_s, took)
        _count(ended, name, found)
        return
    alone = _alone(data, name)  # where many share a machine, time goes by without work
    if alone.slowest_s > LIMIT_S:
        alone.violations.append(f"{name}: took {alone.slowest_s:.1f} s")
    found.add(alone, name)


def _alone(data: bytes, name: str) -> Found:
    """Decodes in a worker of its own, whose processor time counts, its start included."""
    found, before, begin = Found(), _children(), _spent_s()
    with Decoders(PX, Reading(1, limit_s=PATIENCE * LIMIT_S)) as decoders:
        (ended,) = decoders.decode([data])
        _count(ended, name, found)
        found.peak_bytes = max(map(_peak_bytes, _children() - before), default=0)
    found.slowest_s = _spent_s() - begin
    return found


def _count(ended: Decoded | ImageError, name: str, found: Found) -> None:
    outcome = ended.reason if isinstance(ended, ImageError) else "pixels"
    if isinstance(ended, ImageError) and (outcome not in IMAGE_REASONS or "\n" in str(ended)):
        found.violations.append(f"{name}: {outcome}, {str(ended)!r}")
    found.items += 1
    found.outcomes[outcome] += 1


def _spent_s() -> float:
    """Processor time of all children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


# ---- tars -------------------------------------------------------------------------------------------------------


class _Late(BaseException):
    """Not an Exception, so that no reader takes it for a fault of the file."""


def _late(signal_number: int, frame: FrameType | None) -> None:
    raise _Late


def _read_tars(asked: tuple[int, range, float]) -> tuple[Found, str]:
    seed, numbers, end = asked
    found = Found()
    signal.signal(signal.SIGALRM, _late)
    with tempfile.TemporaryDirectory() as folder:
        for number in _in_time(numbers, end):
            name = f"seed {seed}, tar {number}"
            data = mutants.tar(seed, number)
            path = Path(folder, "x.tar" + {b"\x1f\x8b": ".gz", b"BZ": ".bz2", b"\xfd7": ".xz"}.get(data[:2], ""))
            path.write_bytes(data)
            for walk in (_pairs, _rows):
                begin = time.process_time()
                _walk(walk(path), name, found)
                found.slowest_s = max(found.slowest_s, took := time.process_time() - begin)
                if took > LIMIT_S:
                    found.violations.append(f"{name}: took {took:.1f} s")
            path.unlink()
            found.items += 1
    found.peak_bytes = _peak_bytes(os.getpid())
    return found, f"seed {seed}, tars {numbers.start} to {numbers.stop - 1}"


def _walk(rows: Iterator[str], name: str, found: Found) -> None:
    """Takes what rows are until there are no more."""
    signal.setitimer(signal.ITIMER_REAL, PATIENCE * LIMIT_S)
    try:
        for outcome in rows:
            found.outcomes[outcome] += 1
            if outcome not in ROW_ENDS:
                found.violations.append(f"{name}: {outcome}")
    except _Late:
        found.violations.append(f"{name}: was not done after {PATIENCE * LIMIT_S:g} s")
    except DataError as error:
        found.outcomes["nothing usable"] += 1
        if "\n" in str(error):
            found.violations.append(f"{name}: {str(error)!r}")
    except Exception as error:
        found.violations.append(f"{name}: {error!r}")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _pairs(path: Path) -> Iterator[str]:
    """As training reads: images and texts at once."""
    for row in open_source(path).read():
        yield row.reason if isinstance(row, Failure) else "a pair" if row.image and row.texts else repr(row)


def _rows(path: Path) -> Iterator[str]:
    """As cleaning reads: rows first, then each image from where its reference says."""
    with Images() as images:
        for _, table in tasks(open_source(path, captions="optional"), TOGETHER, ()):
            for row in table.to_pylist():
                try:
                    yield row["failed"] or ("an image" if images.load(row["ref"]) else repr(row))
                except ImageError as error:
                    yield error.reason


# ---- memory -----------------------------------------------------------------------------------------------------


def _status(process: int | str) -> dict[str, str]:
    """What Linux says of a process; nothing where it is gone, or elsewhere."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return {}
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


def _children() -> set[int]:
    own = str(os.getpid())
    names = (path.name for path in Path("/proc").glob("[0-9]*"))
    return {int(name) for name in names if _status(name).get("PPid") == own}


def _peak_bytes(process: int) -> int:
    return int(_status(process).get("VmHWM", "0 kB").split()[0]) * 1024


def main(arguments: Sequence[str] | None = None) -> None:
    """The commands above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--tars", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0, help="number of the first item; giants come with 0 alone")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="the most for images, and for tars")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    told: dict[str, Any] = {"seed": given.seed}
    violations: list[str] = []
    passes: dict[str, Callable[[], Found]] = {  # tars first: their processes are forked while there are no threads
        "tars": lambda: fuzz_tars(range(given.first, given.first + given.tars), given.seed, given.seconds),
        "giants": lambda: fuzz_giants() if not given.first and given.images else Found(),
        "images": lambda: fuzz_images(range(given.first, given.first + given.images), given.seed, given.seconds),
    }
    for name, fuzz in passes.items():
        found = fuzz()
        told[name] = found.told()
        violations += found.violations
    print(json.dumps({**told, "violations": violations}, indent=2))
    sys.exit(bool(violations))


if __name__ == "__main__":
    main()
