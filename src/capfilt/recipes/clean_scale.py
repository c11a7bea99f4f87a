"""How a run's views grow with its rows: rules, decisions and page of so many drawn rows, and of twice as many.

    python -m capfilt.recipes.clean_scale 1000000        # five minutes on two cores, a gigabyte of disk for that long

The ledgers are as a run leaves them; no image and no model is touched. Each step is a process of its own, so that its
peak memory is its own. The goals, for a million rows: decisions in 5 s, the page in 30 s, each step below 1.5 GiB, and
at most 2.2 times as long for twice the rows.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from capfilt.clean.columns import ROWS, SCORES
from capfilt.clean.ledger import Ledger
from capfilt.clean.policies import Policy
from capfilt.clean.rules import NEEDS, Rules, flags
from capfilt.clean.telling import gather
from capfilt.clean.views import decide_run
from capfilt.data.refs import Ref
from capfilt.files import atomic
from capfilt.report.clean import write_clean_report
from capfilt.runtime import peak_mib, rng

SHARD_ROWS = 500  # as `clean.config` has it
WORDS = np.array(["red", "small", "boat", "house", "water", "two", "trees", "man", "dog", "sky", "photo", "for sale"])


def clean_scale(rows: int) -> dict[str, Any]:
    """Times every step on `rows` and twice as many, prints a table; {step: {"seconds", "mib", "ratio"}}."""
    found: dict[str, dict[str, Any]] = {}
    for times in (1, 2):
        with tempfile.TemporaryDirectory(prefix="capfilt-") as folder:
            write(Path(folder), times * rows)
            for step in STEPS:
                told = _alone(step, Path(folder))
                if times == 1:
                    found[step] = told
                else:
                    found[step] |= {"ratio": told["seconds"] / found[step]["seconds"], "mib_twice": told["mib"]}
    print(f"{rows:,} rows     seconds   peak MiB   MiB of twice as many   time of twice as many")
    for step, told in found.items():
        print("{:16} {seconds:7.2f} {mib:10} {mib_twice:22} {ratio:22.2f} x".format(step, **told))
    return found


def write(out: Path, rows: int, seed: int = 0) -> None:
    """A ledger of so many drawn rows: of 100, one cannot be read, one is tiny, one a copy; the others are scored."""
    ledger = Ledger(out)
    for shard in range(-(-rows // SHARD_ROWS)):
        intake, scores = _drawn(min(SHARD_ROWS, rows - shard * SHARD_ROWS), shard, seed)
        ledger.commit("rows", shard, intake)
        ledger.commit("scores", shard, scores)


def _drawn(count: int, shard: int, seed: int) -> tuple[pa.Table, pa.Table]:
    draw = rng(seed, "clean_scale", shard)
    ids = [draw.bytes(16).hex() for _ in range(count)]
    fate = draw.integers(0, 100, count)
    readable = fate != 0
    sha = [draw.bytes(32).hex() if kind != 2 else "0" * 64 for kind in fate]
    texts, written = ([" ".join(words) for words in draw.choice(WORDS, (count, 8))] for _ in range(2))
    rows: dict[str, Any] = {
        "id": ids,
        "key": [f"photos/{shard:05d}/{i:04d}.jpg" for i in range(count)],
        "source": [f"shop-{i}" for i in draw.integers(0, 20, count)],
        "texts": [[text] for text in texts],
        "text_flags": [[]] * count,
        "licence": draw.choice(["cc0", "cc-by", "unknown"], count),
        "meta": [f'{{"row": {i}}}' for i in range(count)],
        "ref": [Ref("file", f"/photos/{shard:05d}/{i:04d}.jpg").json() for i in range(count)],
        "failed": [None if fine else "truncated" for fine in readable],
        "error": [None if fine else "JPEG of 9 bytes" for fine in readable],
        "sha256": sha,
        "bytes": draw.integers(1000, 100_000, count),
        "format": ["JPEG"] * count,
        "width": np.where(fate == 1, 8, draw.integers(200, 2000, count)).astype(np.int32),
        "height": draw.integers(200, 2000, count).astype(np.int32),
        "frames": np.ones(count, np.int32),
        "notes": [[]] * count,
        "looks": draw.integers(0, 2**63, count).astype(np.uint64),
        "spread": draw.uniform(10, 90, count).astype(np.float32),
    }
    scores: dict[str, Any] = {
        name: [[score] if fine else [] for score, fine in zip(draw.uniform(0, 1, count), readable, strict=True)]
        for name in ("itm_web", "itc_web", "itm_synthetic", "itc_synthetic", "logp")
    }
    scores["synthetic"] = [[text] if fine else [] for text, fine in zip(written, readable, strict=True)]
    scores |= {"id": ids, "extra": [None] * count, "failed": [None] * count, "error": [None] * count}
    return tuple(
        pa.table([pa.array(table[field.name], field.type) for field in schema], schema=schema)
        for table, schema in ((rows, ROWS), (scores, SCORES))
    )


def _flags(out: Path) -> None:
    found = flags(Ledger(out).tables("rows", list(NEEDS)), Rules())
    atomic(out / "flags.parquet", lambda path: parquet.write_table(found, path))


def _page(out: Path) -> None:
    write_clean_report(out / "report", gather(out))


STEPS: dict[str, Callable[[Path], object]] = {
    "rules": _flags,
    "decide": lambda out: decide_run(out, Policy()),
    "decide by group": lambda out: decide_run(out, Policy(top=0.3, by="source")),
    "page": _page,
}


def _alone(step: str, out: Path) -> dict[str, Any]:
    """Seconds and peak memory of a step in a process of its own; starting it is not counted."""
    ran = subprocess.run(
        [sys.executable, "-m", "capfilt.recipes.clean_scale", step, str(out)], stdout=subprocess.PIPE, check=True
    )
    return json.loads(ran.stdout)


def _step(step: str, out: Path) -> None:
    began = time.perf_counter()
    STEPS[step](out)
    print(json.dumps({"seconds": time.perf_counter() - began, "mib": peak_mib()}))


if __name__ == "__main__":
    if len(sys.argv) > 2:
        _step(sys.argv[1], Path(sys.argv[2]))
    else:
        clean_scale(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
