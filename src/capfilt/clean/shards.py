"""Row-wise work in shards: each shard is computed once, written whole, and found again after any kind of death."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from capfilt.config import fingerprint
from capfilt.errors import ConfigError
from capfilt.files import read_json, read_jsonl, write_json, write_jsonl
from capfilt.progress import Progress

Rows = list[dict[str, Any]]


def in_shards(
    out: Path, stage: str, total: int, work: Callable[[int, int], Rows], about: dict[str, Any], size: int = 1000
) -> Rows:
    """All rows of `work(start, stop)` over `total` rows, in order; shards already in `out` are read, not computed.

    about: what the rows depend on. A folder made with other settings is refused rather than mixed.
    """
    mark = fingerprint({**about, "total": total, "size": size})
    if (out / "about.json").is_file() and read_json(out / "about.json")["fingerprint"] != mark:
        raise ConfigError(f"{out}: holds rows made with other settings. Use another --out, or delete the folder.")
    write_json(out / "about.json", {"fingerprint": mark, **about})
    rows: Rows = []
    with Progress(stage, total) as bar:
        for start in range(0, total, size):
            path = out / f"{start // size:05d}.jsonl"
            if path.is_file():
                shard = read_jsonl(path)
            else:
                shard = work(start, min(total, start + size))
                write_jsonl(path, shard)
            rows += shard
            bar.update(min(total, start + size))
    return rows
