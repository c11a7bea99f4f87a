"""CapFilt over a real collection (`capfilt clean`): look at every row, let the models work on what the rules leave,
decide, tell. What is done is found again; see `clean.ledger` for the folder.

Costs the models' time: a base model at 384 px cleans about an image a second on two cores (docs/numbers.md, "cleaning a
collection"). Looking at a row takes milliseconds, deciding about a million of them seconds.
"""

import contextlib
import dataclasses
import itertools
import json
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet

from capfilt import __version__
from capfilt.clean import rules
from capfilt.clean.columns import INTAKE
from capfilt.clean.config import CleanConfig
from capfilt.clean.deciding import RUN, WHOLE, begun, last_policy, tell
from capfilt.clean.engines import Engine
from capfilt.clean.engines.here import Here
from capfilt.clean.intake import tasks
from capfilt.clean.ledger import Ledger
from capfilt.clean.policies import Policy
from capfilt.clean.stages import Models, Scan, Score, Stage
from capfilt.clean.views import decide_run
from capfilt.config import fingerprint, from_dict
from capfilt.data.sources import Source, open_source
from capfilt.errors import ChangedError, ConfigError, DataError, FailRateError, NothingToRead
from capfilt.files import atomic, lease, read_json, write_json
from capfilt.progress import Progress
from capfilt.runtime import sigterm_raises

MODELS = "models.json"


@dataclass(frozen=True)
class Part:
    """One of `of` processes that share a folder, from 1: it works on every `of`-th shard."""

    number: int
    of: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.of:
            raise ConfigError(f"part {self.number}/{self.of}: write i/n with i from 1 to n")

    def __str__(self) -> str:
        return f"{self.number}-of-{self.of}"

    def has(self, shard: int) -> bool:
        """Whether that shard is this part's."""
        return shard % self.of == self.number - 1


WHOLE_RUN = Part(1, 1)


def clean(
    config: CleanConfig,
    out: Path,
    policy: Policy | None = None,
    engine: Engine | None = None,
    part: Part = WHOLE_RUN,
    max_fail_rate: float = 1.0,
) -> dict[str, Any]:
    """Cleans a collection into `out`, or goes on with that; → counts of rows and what became of them.

    part: of several processes with an output folder in common, each is one; when all have ended, a whole run decides.

    Raises ChangedError where `out` holds a run of other settings, models or data, NothingToRead without a usable row,
    FailRateError above `max_fail_rate` (a share of the rows), CheckFailed where rows do not add up, BusyError.
    """
    engine = engine or Here()
    alone, source = part == WHOLE_RUN, opened(config)  # a name that is not there begins no run
    with contextlib.ExitStack() as held:
        held.enter_context(lease(out, shared=not alone))
        if not alone:
            held.enter_context(lease(out / "parts" / str(part)))
        held.enter_context(sigterm_raises())
        _begin(config, out)
        ledger = Ledger(out, "" if alone else str(part))
        for line in ledger.verify():
            warnings.warn(line, stacklevel=2)
        _scan(config, source, ledger, engine, part)
        if alone or ledger.rows("rows"):  # a part may have no shard
            _check_failed(ledger, max_fail_rate, config.source)
        flags = flag(config, ledger) if alone else None
        _score(config, ledger, engine, part, flags)
        if not alone:
            return {"in": ledger.rows("rows"), "done": False}
        counts = decide_run(out, policy or last_policy(out))
        tell(out)
    _check_rate(
        counts["failed"], counts["in"], max_fail_rate, "capfilt report shows why, capfilt retry tries them again"
    )
    return counts


def load_config(out: Path) -> CleanConfig:
    """The settings that a run was begun with. Raises ConfigError where no run is."""
    return from_dict(CleanConfig, begun(out)["config"])


# ---- begin, and begin again -------------------------------------------------------------------------------------


def _begin(config: CleanConfig, out: Path) -> None:
    about = {"capfilt": __version__, "config": config.outcome()}
    if not (out / RUN).is_file():
        write_json(out / RUN, about)
        return
    before = read_json(out / RUN)
    changed = [f"{name}: {old} → {new}" for name, old, new in _differences(before, about)]
    if changed:
        raise ChangedError(
            f"{out}: holds a run of other settings ({'; '.join(changed)}). Use another -o, or delete it."
        )


def _differences(old: Any, new: Any, name: str = "") -> Iterator[tuple[str, Any, Any]]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in dict.fromkeys((*old, *new)):
            yield from _differences(old.get(key), new.get(key), f"{name}.{key}".lstrip("."))
    elif old != new:
        yield name.removeprefix("config."), json.dumps(old), json.dumps(new)


def settle(config: CleanConfig, out: Path) -> Models:
    """The models as they are in this run: what `auto` came to when it began, and the same weights."""
    path = out / MODELS
    if not path.is_file():
        settled = config.models.settled()
        write_json(path, {"precision": settled.precision, "engine": settled.engine, "weights": settled.weights()})
        return settled
    known = read_json(path)
    models = dataclasses.replace(config.models, precision=known["precision"], engine=known["engine"])
    for name, digest in models.weights().items():
        if known["weights"].get(name) != digest:
            raise ChangedError(f"{out}: {name} holds other weights than when this run began. Use another -o.")
    return models


# ---- the passes -------------------------------------------------------------------------------------------------


class _Done:
    """Shards to pass over: those that are there, and those of other parts."""

    def __init__(self, ledger: Ledger, stage: str, part: Part) -> None:
        self.there, self.part = set(ledger.shards(stage)), part

    def __contains__(self, shard: object) -> bool:
        return not isinstance(shard, int) or shard in self.there or not self.part.has(shard)


def _scan(config: CleanConfig, source: Source, ledger: Ledger, engine: Engine, part: Part) -> None:
    path = ledger.out / WHOLE
    mark = fingerprint(source.state())
    whole = read_json(path) if path.is_file() else None
    if whole and whole["source"] != mark:
        raise ChangedError(f"{config.source}: changed since {ledger.out} read it. Use another -o, or put it back.")
    if whole and len(ledger.shards("rows")) == whole["shards"]:
        return
    done = _Done(ledger, "rows", part)
    stage = Scan(config.workers, config.limit_s, config.fetching)
    _commit(ledger, engine, stage, tasks(source, config.shard_rows, done), "look", None)
    if part == WHOLE_RUN:
        found = ledger.shards("rows")
        if found != list(range(len(found))):
            raise ChangedError(f"{config.source}: gave other rows than when {ledger.out} was begun. Use another -o.")
        write_json(path, {"source": mark, "rows": ledger.rows("rows"), "shards": len(found)})


def opened(config: CleanConfig) -> Source:
    return open_source(
        config.source, image=config.image, text=config.text, captions="optional", urls=config.fetching is not None
    )


def flag(config: CleanConfig, ledger: Ledger) -> pa.Table:
    """What the rules say of every row, written to `flags.parquet`."""
    flags = rules.flags(ledger.tables("rows", rules.NEEDS), config.rules)
    atomic(ledger.out / "flags.parquet", lambda to: parquet.write_table(flags, to, compression="zstd"))
    return flags


def _score(config: CleanConfig, ledger: Ledger, engine: Engine, part: Part, flags: pa.Table | None) -> None:
    done = _Done(ledger, "scores", part)
    todo = [shard for shard in ledger.shards("rows") if shard not in done]
    if not todo:
        return
    models = settle(config, ledger.out)
    starts = dict(zip(ledger.shards("rows"), _starts(ledger), strict=True))

    def asked() -> Iterator[tuple[int, pa.Table]]:
        for shard in todo:
            table = ledger.table("rows", shard)
            broken = rules.alone(table, config.rules) if flags is None else flags.slice(starts[shard], len(table))
            yield shard, to_score(table, broken)

    stage = Score(models, config.workers, config.limit_s, config.fetching)
    _commit(ledger, engine, stage, asked(), "caption and judge", ledger.rows("rows"))


def to_score(table: pa.Table, broken: pa.Table) -> pa.Table:
    """What `Score` needs of rows: rules about the text leave the image to the models."""
    rule = pc.if_else(rules.whole(broken["rule"]), broken["rule"], None)
    return table.select(["id", "texts", "ref", "failed"]).append_column("rule", rule)


def _starts(ledger: Ledger) -> list[int]:
    rows = [ledger.entries["rows", shard].rows for shard in ledger.shards("rows")]
    return [0, *itertools.accumulate(rows)][:-1]


def _commit(
    ledger: Ledger,
    engine: Engine,
    stage: Stage,
    todo: Iterable[tuple[int, pa.Table]],
    told: str,
    total: int | None,
) -> None:
    """Runs a stage; each shard is committed as it comes."""
    with (
        Progress(told, total, start=ledger.rows(stage.name)) as bar,
        contextlib.closing(engine.run(stage, todo)) as made,
    ):
        for shard, table in made:
            ledger.commit(stage.name, shard, table)
            bar.update(ledger.rows(stage.name))


# ---- failures ---------------------------------------------------------------------------------------------------


def _check_failed(ledger: Ledger, most: float, source: str) -> None:
    rows = failed = 0
    first = ""
    for table in ledger.tables("rows", ["failed", "error"]):
        rows, failed = rows + len(table), failed + len(table) - table["failed"].null_count
        first = first or next(filter(None, table["error"].to_pylist()), "")
    if rows == failed:
        raise NothingToRead(f"{source}: none of {rows} rows can be used" + (f"; the first: {first}" if first else ""))
    _check_rate(failed, rows, most, f"no model was asked; capfilt check {source} shows why, a higher rate goes on")


def _check_rate(failed: int, rows: int, most: float, advice: str) -> None:
    if failed > most * rows:
        raise FailRateError(f"{failed} of {rows} rows failed, more than --max-fail-rate {most:g}; {advice}")


def retry(out: Path, engine: Engine | None = None, policy: Policy | None = None) -> dict[str, Any]:
    """Works again on rows that failed, images that came late for example, and decides anew; → counts, and `mended`."""
    config, engine = load_config(out), engine or Here()
    with lease(out), sigterm_raises():
        ledger = Ledger(out)
        if lost := ledger.verify():
            raise DataError(f"{lost[0]}, by the same capfilt clean; run that first")
        mended: set[str] = set()

        def unread(shard: int) -> tuple[pa.Table, np.ndarray]:
            table = ledger.table("rows", shard, INTAKE.names)
            again = ~_null(table["failed"]) & ~_null(table["ref"])
            nothing = pa.nulls(len(table), pa.string())
            for name in ("failed", "error"):
                table = table.set_column(table.schema.get_field_index(name), name, nothing)
            return table, again

        _again(ledger, engine, Scan(config.workers, config.limit_s, config.fetching), unread, mended)
        flags = flag(config, ledger)
        starts = dict(zip(ledger.shards("rows"), _starts(ledger), strict=True))

        def unscored(shard: int) -> tuple[pa.Table, np.ndarray]:
            rows, scores = (
                ledger.table("rows", shard),
                ledger.table("scores", shard, ["itc_web", "synthetic", "failed"]),
            )
            asked = to_score(rows, flags.slice(starts[shard], len(rows)))
            usable = _null(asked["failed"]) & _null(asked["rule"])
            unseen = [
                not web and not written
                for web, written in zip(*(scores[name].to_pylist() for name in ("itc_web", "synthetic")), strict=True)
            ]
            return asked, usable & (np.array(unseen, bool) | ~_null(scores["failed"]))

        if ledger.shards("scores"):
            stage = Score(settle(config, out), config.workers, config.limit_s, config.fetching)
            _again(ledger, engine, stage, unscored, mended)
        counts = decide_run(out, policy or last_policy(out))
        tell(out)
    return {**counts, "mended": len(mended)}


def _again(
    ledger: Ledger,
    engine: Engine,
    stage: Stage,
    asked: Callable[[int], tuple[pa.Table, np.ndarray]],
    mended: set[str],
) -> None:
    """Has a stage work again on some rows of its shards, and puts them in the place of the old ones.

    asked: shard → what the stage needs of its rows, and which are meant. mended: gets the ids that no longer fail.
    """
    meant: dict[int, np.ndarray] = {}

    def todo() -> Iterator[tuple[int, pa.Table]]:
        for shard in ledger.shards(stage.name):
            table, meant[shard] = asked(shard)
            if meant[shard].any():
                yield shard, table.filter(pa.array(meant[shard]))

    with Progress("try again") as bar, contextlib.closing(engine.run(stage, todo())) as made:
        for shard, new in made:
            again = meant[shard]
            both = pa.concat_tables([ledger.table(stage.name, shard).filter(pa.array(~again)), new])
            order = np.argsort(np.concatenate([np.flatnonzero(~again), np.flatnonzero(again)]))
            ledger.commit(stage.name, shard, both.take(order).combine_chunks())
            mended.update(new.filter(pa.array(_null(new["failed"])))["id"].to_pylist())
            bar.update(len(mended))


def _null(column: pa.ChunkedArray) -> np.ndarray:
    return column.is_null().to_numpy()
