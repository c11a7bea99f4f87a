"""A run's decisions as files: made anew in seconds by any policy, from scores that stay as they are.

OUT/decisions.parquet   columns.DECISIONS, rows in the order of the source
OUT/decisions.json      {"policy", "thresholds": {group: {"web", "synthetic"}}, "counts", "done",
                         "sources": {source: counts}, "kinds": {kind of reason: rows}, "rules": {rule: rows},
                         "reviews": rows that a person decided}
"""

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
from pyarrow import compute, parquet

from capfilt.clean import reviews as people
from capfilt.clean.columns import DECISIONS, FLAGS, SCHEMAS
from capfilt.clean.ledger import Ledger
from capfilt.clean.policies import READ, READ_FIRST, WORDS, Policy, bars, decide, web_scores
from capfilt.errors import CheckFailed
from capfilt.files import atomic, write_json
from capfilt.runtime import usable_cores

TOLD = dict(zip(WORDS, ("kept", "replaced", "dropped", "failed"), strict=True))
AT_ONCE = 50_000  # rows, in whole shards: enough that a shard's size costs no time, few enough for any memory
THREADS = 4  # at most
T = TypeVar("T")


def decide_run(out: Path | str, policy: Policy, reviews: bool = True) -> dict[str, int]:
    """Decides every row of a run's ledger; {"in", "kept", "replaced", "dropped", "failed"}.

    The caller holds the folder's lease. Rows that are not scored yet count as failed, and `done` is false.
    reviews: what people said goes before what the policy says.

    Raises:
        CheckFailed: the counts do not add up, or tables do not fit each other.
        ConfigError: a policy by a column that is not there.
    """
    ledger, words = Ledger(out), people.last_words(out) if reviews else {}
    limits = bars(policy, _each(ledger, policy, READ_FIRST, partial(web_scores, policy)))
    account = _Account()

    def decided_part(rows: pa.Table, scores: pa.Table, flags: pa.Table | None) -> tuple[pa.Table, pa.Table | None]:
        return people.heed(decide(policy, limits, rows, scores, flags), words), flags

    def write(path: Path) -> None:
        with parquet.ParquetWriter(path, DECISIONS, compression="zstd", use_dictionary=["source", "decision"]) as file:
            for decided, flags in _each(ledger, policy, READ, decided_part):
                account.add(decided, flags)
                file.write_table(decided.select(DECISIONS.names))
        account.check(ledger.rows("rows"))
        (ledger.out / "decisions.json").unlink(missing_ok=True)  # it never stands beside decisions it is not about

    atomic(ledger.out / "decisions.parquet", write)
    counts = _counts(account.total())
    told = {
        "policy": asdict(policy),
        "thresholds": {group: _limits(policy, bar) for group, bar in limits.items()},
        "counts": counts,
        "done": not account.kinds["not_scored"],
        **account.told(),
    }
    write_json(ledger.out / "decisions.json", told)
    return counts


def _limits(policy: Policy, bar: float) -> dict[str, float]:
    return {name: round(float(limit), 7) for name, limit in zip(("web", "synthetic"), policy.bars(bar), strict=True)}


class _Account:
    """Counts what was decided."""

    def __init__(self) -> None:
        self.kinds: Counter[str] = Counter()
        self.rules: Counter[str] = Counter()
        self.sources: defaultdict[str, Counter[str]] = defaultdict(Counter)

    def add(self, decided: pa.Table, flags: pa.Table | None) -> None:
        """decided: DECIDED."""
        self.kinds.update(_values(decided["kind"]))
        if flags is not None:
            self.rules.update(_values(flags["rule"]))
        groups = pa.table({"s": compute.coalesce(decided["source"], ""), "d": decided["decision"]}).group_by(["s", "d"])
        for group in groups.aggregate([([], "count_all")]).to_pylist():
            self.sources[group["s"]][group["d"]] += group["count_all"]

    def total(self) -> Counter[str]:
        """Decision → rows."""
        return sum(self.sources.values(), Counter())

    def check(self, rows: int) -> None:
        """Raises CheckFailed unless each of `rows` has one of the four decisions."""
        found = self.total()
        if set(found) - set(TOLD) or found.total() != rows:
            raise CheckFailed(f"{rows} rows went in, {dict(found)} came out: the counts do not add up")

    def told(self) -> dict[str, Any]:
        return {
            "sources": {source: _counts(found) for source, found in sorted(self.sources.items())},
            "kinds": dict(sorted(self.kinds.items())),
            "rules": dict(sorted(self.rules.items())),
            "reviews": self.kinds[people.KIND],
        }


def _counts(found: Counter[str]) -> dict[str, int]:
    return {"in": found.total(), **{told: found[word] for word, told in TOLD.items()}}


def _values(column: pa.ChunkedArray) -> dict[str, int]:
    return {pair["values"]: pair["counts"] for pair in column.drop_null().value_counts().to_pylist()}


def _each(ledger: Ledger, policy: Policy, read: Mapping[str, Sequence[str]], work: Callable[..., T]) -> Iterator[T]:
    """What `work(rows, scores, flags)` makes of so many whole shards at a time, in order; scores as far as there are.

    Done by threads, which Arrow lets run side by side; few parts are in memory at once.
    """
    columns = {**read, "rows": list(dict.fromkeys([*read["rows"], *policy.groups_in]))}
    none = {stage: pa.schema(map(SCHEMAS[stage].field, columns[stage])).empty_table() for stage in columns}

    def table(stage: str, part: list[int]) -> pa.Table:
        shards = (ledger.table(stage, i, columns[stage]) for i in part if (stage, i) in ledger.entries)
        return pa.concat_tables([none[stage], *shards]).combine_chunks()

    def made(part: list[int], flags: pa.Table | None) -> T:
        return work(table("rows", part), table("scores", part), flags)

    flags, ahead = _Flags(ledger.out / "flags.parquet"), deque[Future[T]]()
    with ThreadPoolExecutor(min(THREADS, usable_cores())) as pool:
        for part in _cut(ledger):
            ahead.append(pool.submit(made, part, flags.next(sum(ledger.entries["rows", i].rows for i in part))))
            if len(ahead) > THREADS:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def _cut(ledger: Ledger) -> Iterator[list[int]]:
    """Shards in parts of `AT_ONCE` rows or a little more."""
    part: list[int] = []
    rows = 0
    for shard in ledger.shards("rows"):
        part.append(shard)
        rows += ledger.entries["rows", shard].rows
        if rows >= AT_ONCE:
            yield part
            part, rows = [], 0
    if part:
        yield part


class _Flags:
    """The flags of a run, as many at a time as there are rows."""

    def __init__(self, path: Path) -> None:
        self.held = FLAGS.empty_table()
        self.file = parquet.ParquetFile(path, memory_map=True) if path.is_file() else None
        self.batches = self.file.iter_batches(AT_ONCE) if self.file else iter(())

    def next(self, rows: int) -> pa.Table | None:
        """The next ones; None without a file."""
        if self.file is None:
            return None
        while len(self.held) < rows and (batch := next(self.batches, None)) is not None:
            self.held = pa.concat_tables([self.held, pa.Table.from_batches([batch])])
        flags, self.held = self.held[:rows], self.held[rows:]
        return flags
