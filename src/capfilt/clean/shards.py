"""Row-wise work in shards: each shard is computed once, written whole, and found again after any kind of death."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from capfilt.config import fingerprint
from capfilt.errors import CheckFailed, ConfigError
from capfilt.files import read_json, read_jsonl, write_json, write_jsonl
from capfilt.progress import Progress
from capfilt.ranks import ALONE, Ranks

Rows = list[dict[str, Any]]
SIZE = 1000  # rows a shard


def in_shards(
    out: Path,
    stage: str,
    total: int,
    work: Callable[[int, int], Rows],
    about: dict[str, Any],
    size: int = SIZE,
    ranks: Ranks = ALONE,
) -> Rows:
    """All rows of `work(start, stop)` over `total` rows, in order; shards already in `out` are read, not computed.

    about: what the rows depend on. A folder made with other settings is refused rather than mixed.
    ranks: every rank computes its share of the shards and gets all rows.
    """
    mark = fingerprint({**about, "total": total, "size": size})
    known = (out / "about.json").is_file()
    if known and read_json(out / "about.json")["fingerprint"] != mark:
        raise ConfigError(f"{out}: holds rows made with other settings. Use another --out, or delete the folder.")
    if not known and not ranks.rank:
        write_json(out / "about.json", {"fingerprint": mark, **about})
    starts = range(0, total, size)
    with Progress(stage, total) as bar:
        for start in starts[ranks.rank :: ranks.world]:
            path, stop = _shard(out, start, size), min(total, start + size)
            if not path.is_file():
                write_jsonl(path, work(start, stop))
            bar.update(stop)
    ranks.barrier()
    rows: Rows = []
    for start in starts:
        path, stop = _shard(out, start, size), min(total, start + size)
        shard = read_jsonl(path)
        if len(shard) != stop - start:
            raise CheckFailed(
                f"{path}: holds {len(shard)} rows for {stop - start} images. "
                "Delete this file and run the same command again."
            )
        rows += shard
    return rows


def to_do(out: Path, total: int, size: int = SIZE) -> bool:
    """Whether a shard is still missing."""
    return not all(_shard(out, start, size).is_file() for start in range(0, total, size))


def _shard(out: Path, start: int, size: int) -> Path:
    return out / f"{start // size:05d}.jsonl"
