"""What cleaning a collection would take (`capfilt plan`): a sample goes through the very stages of `capfilt clean`.

Costs at most half a minute of reading names, loading both models, and some two minutes of their work. Nothing is
written.
"""

import dataclasses
import time
from collections import Counter
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from capfilt.clean import rules
from capfilt.clean.columns import INTAKE
from capfilt.clean.config import CleanConfig
from capfilt.clean.intake import tasks
from capfilt.clean.stages import Scan, Score, Stage
from capfilt.data.sources import Source, open_source
from capfilt.data.tar_shards import split_name
from capfilt.errors import ConfigError, NothingToRead
from capfilt.progress import Progress
from capfilt.recipes.cleaning import to_score
from capfilt.runtime import peak_mib, rng

SAMPLE = 100  # rows
NAMES_S, WORK_S = 30.0, 120.0  # the most that names are read, and that either stage works
AT_ONCE = 32  # rows
NAMES_AT_ONCE = 4096
WARM = 2  # rows before the clock starts: a first call sets things up
AGAIN = 2.0  # decisions and flags take about as much as scores once more

Counted = Literal["all", "estimated", "at least"]


@dataclass(frozen=True)
class Plan:
    """What was measured, and what follows from it for the whole collection.

    counted:     how `rows` is known: `all` were counted; `estimated` from the files that were read in the time;
                 `at least` so many were found, nobody knows how many follow.
    sample:      rows looked at; `judged`: how many of them went through the models.
    readable:    share of the sample that can be used; `reasons`: reason → rows that cannot.
    ruled_out:   share that the rules keep from the models. Duplicates show only when all rows are there.
    rows_per_s:  of each step on this machine: `names`, `look` (load, decode, measure), `judge` (caption and score).
    hours:       of the whole on this machine; `hours_each`: on each of `devices` machines like it.
    memory_mib:  most that this process and the largest of its decoders held.
    disk_mib:    of the output folder, without the page and exports.
    cost:        of all the hours at `price`; None without one.
    """

    source: str
    rows: int
    counted: Counted
    sample: int
    judged: int
    readable: float
    reasons: dict[str, int]
    ruled_out: float
    rows_per_s: dict[str, float]
    hours: float
    devices: int
    hours_each: float
    memory_mib: int
    disk_mib: float
    price: float | None
    cost: float | None


def plan(config: CleanConfig, sample: int = SAMPLE, devices: int = 1, price: float | None = None) -> Plan:
    """Measures `sample` rows, drawn by the models' seed from all over the collection.

    devices: machines of this kind that share the work. price: of each an hour.

    Raises ConfigError for numbers that make no sense, NothingToRead where no row of the sample can be used.
    """
    if sample < 1 or devices < 1 or (price is not None and price < 0):
        raise ConfigError(f"sample={sample}, devices={devices}, price={price}: at least 1, 1 and 0 are needed")
    draw = _Draw(config.models.seed, sample)
    rows, counted, name_s = _counted(config, draw)
    looked, look_s = _timed(Scan(config.workers, config.limit_s, config.fetching), draw.drawn)
    reasons = Counter(filter(None, looked["failed"].to_pylist()))
    readable = 1 - reasons.total() / len(looked) if len(looked) else 0.0
    if not readable:
        first = next(filter(None, looked["error"].to_pylist()), "no rows")
        raise NothingToRead(f"{config.source}: none of {len(looked)} sampled rows can be used; the first: {first}")
    asked = to_score(looked, rules.flags([looked], config.rules))
    asked = asked.filter(pa.compute.and_(asked["failed"].is_null(), asked["rule"].is_null()))
    scores, judge_s = _timed(Score(config.models, config.workers, config.limit_s, config.fetching), asked)
    share = len(asked) / len(looked)
    hours = rows * (name_s + look_s + share * judge_s) / 3600
    row_bytes = _bytes(looked) + share * (1 + AGAIN) * _bytes(scores)
    each_s = {"names": name_s, "look": look_s, "judge": judge_s}
    return Plan(
        config.source,
        rows,
        counted,
        sample=len(looked),
        judged=len(scores),
        readable=readable,
        reasons=dict(reasons.most_common()),
        ruled_out=readable - share,
        rows_per_s={name: 1 / seconds for name, seconds in each_s.items() if seconds},
        hours=hours,
        devices=devices,
        hours_each=hours / devices,
        memory_mib=peak_mib(),
        disk_mib=rows * row_bytes / 2**20,
        price=price,
        cost=None if price is None else hours * price,
    )


class _Draw:
    """Rows as they come by are counted, and some drawn, each as likely as any other."""

    def __init__(self, seed: int, most: int) -> None:
        self.random, self.most, self.rows = rng("plan", seed), most, 0
        self.lots, self.drawn = np.empty(0), INTAKE.empty_table()

    def see(self, table: pa.Table) -> None:
        lots = np.concatenate([self.lots, self.random.random(len(table))])
        kept = np.sort(np.argsort(lots, kind="stable")[: self.most])
        self.lots, self.drawn = lots[kept], pa.concat_tables([self.drawn, table]).take(kept)
        self.rows += len(table)


def _counted(config: CleanConfig, draw: _Draw) -> tuple[int, Counted, float]:
    """Shows `draw` every row, or as many as there is time for; → rows of the whole, how that is known, seconds a row.

    Files come in an order that is drawn too, so that those for which there was time stand for the others.
    """
    source = open_source(
        config.source, image=config.image, text=config.text, captions="optional", urls=config.fetching is not None
    )
    began, parts = time.monotonic(), _parts(source)
    whole, read, rows = sum(weight for _, weight in parts), 0, 0
    with Progress("read names", whole) as bar:
        for i in draw.random.permutation(len(parts)):
            files, weight = parts[i]
            part = dataclasses.replace(source, origin=dataclasses.replace(source.origin, files=files))
            for _, table in tasks(part, NAMES_AT_ONCE, ()):
                draw.see(table)
                if time.monotonic() - began > NAMES_S:
                    break
            else:
                read, rows = read + weight, draw.rows
                bar.update(read)
                continue
            break
    each_s = (time.monotonic() - began) / max(draw.rows, 1)
    if read == whole:
        return rows, "all", each_s
    return (round(rows * whole / read), "estimated", each_s) if read else (draw.rows, "at least", each_s)


def _parts(source: Source) -> list[tuple[tuple[str, ...], int]]:
    """Files that can be read without the others, and their share of the whole: bytes, or in a folder files."""
    if source.kind != "folder":
        state = source.state()
        return [((file,), max(1, int(state[file].get("size", 1)))) for file in source.files]
    beside: dict[str, list[str]] = {}
    for file in source.files:
        beside.setdefault(split_name(file)[0], []).append(file)
    stems = list(beside)
    groups = [stems[at : at + NAMES_AT_ONCE] for at in range(0, len(stems), NAMES_AT_ONCE)]
    return [(found, len(found)) for group in groups if (found := tuple(f for stem in group for f in beside[stem]))]


def _timed(stage: Stage, table: pa.Table) -> tuple[pa.Table, float]:
    """What a stage makes of a table, or of as much as there is time for, and seconds a row; 0 of no rows."""
    worker, made = stage.open(), []
    try:
        worker.work(table.slice(0, WARM))
        began = time.monotonic()
        with Progress(f"try {stage.name}", len(table)) as bar:
            for start in range(0, max(len(table), 1), AT_ONCE):
                made.append(worker.work(table.slice(start, AT_ONCE)))
                bar.update(min(start + AT_ONCE, len(table)))
                if time.monotonic() - began > WORK_S:
                    break
        seconds = time.monotonic() - began
    finally:
        worker.close()
    done = pa.concat_tables(made)
    return done, seconds / len(done) if len(done) else 0.0


def _bytes(table: pa.Table) -> float:
    """Of a row on disk."""
    into = pa.BufferOutputStream()
    parquet.write_table(table, into, compression="zstd")
    return into.tell() / len(table) if len(table) else 0.0
