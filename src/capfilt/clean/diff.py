"""Two runs over the same rows side by side: whose decisions, texts and scores differ."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import compute, parquet

from capfilt.clean.policies import WORDS
from capfilt.errors import DataError

SCORES = ("itm_web", "itm_synthetic", "itc_web", "itc_synthetic")
TEXTS = ("text", "web_text", "synthetic_text")
EXAMPLES = 10


def diff(before: Path | str, after: Path | str) -> dict[str, Any]:
    """What changed from one run's decisions to another's; rows are found by id.

    {"rows": in both, "only_before", "only_after",
     "decisions": {decision before: {decision after: rows}}, "changed": rows whose decision differs,
     "texts": {column: rows whose text differs},
     "scores": {column: {"rows" with both scores, "shift": their mean |difference|, null without any}},
     "examples": [{"id", "key", "before": {"decision", "text"}, "after": {...}}], the first that differ by id}

    Raises DataError where one of the two was not decided yet.
    """
    old, new = (_read(Path(out)) for out in (before, after))
    place = compute.index_in(new["id"], old["id"].combine_chunks())
    only_after = place.null_count
    rows = len(new) - only_after
    numbers = place.combine_chunks()
    new, first = new.filter(numbers.is_valid()), numbers.drop_null()
    only_before = len(old) - rows
    old = old.take(first)
    words = pa.array(WORDS)
    codes = [compute.index_in(table["decision"], words).to_numpy() for table in (old, new)]
    matrix = np.bincount(len(WORDS) * codes[0] + codes[1], minlength=len(WORDS) ** 2).reshape(len(WORDS), -1)
    differs = {name: _differs(old[name], new[name]) for name in TEXTS}
    return {
        "rows": rows,
        "only_before": only_before,
        "only_after": only_after,
        "decisions": {
            was: dict(zip(WORDS, map(int, row), strict=True)) for was, row in zip(WORDS, matrix, strict=True)
        },
        "changed": int((codes[0] != codes[1]).sum()),
        "texts": {name: int(changed.sum()) for name, changed in differs.items()},
        "scores": {name: _shift(old[name], new[name]) for name in SCORES},
        "examples": _examples(old, new, (codes[0] != codes[1]) | differs["text"]),
    }


def table(found: dict[str, Any]) -> str:
    """What `diff` found, for a terminal."""
    lines = [f"{found['rows']} rows in both, {found['only_before']} only before, {found['only_after']} only after"]
    lines += [f"{'before, after':14}" + "".join(f"{word:>10}" for word in WORDS)]
    lines += [
        f"{word:14}" + "".join(f"{number:10}" for number in row.values()) for word, row in found["decisions"].items()
    ]
    texts = ", ".join(f"{name} {number}" for name, number in found["texts"].items())
    lines += [f"{found['changed']} decisions differ; texts that differ: {texts}"]
    moved = {name: shift["shift"] for name, shift in found["scores"].items() if shift["shift"] is not None}
    if moved:
        lines += ["mean shift of scores: " + ", ".join(f"{name} {shift:.4f}" for name, shift in moved.items())]
    for example in found["examples"]:
        sides = (f"{side['decision']} {side['text']!r}" for side in (example["before"], example["after"]))
        lines += [f"{example['key']!r}: {' → '.join(sides)}"]
    return "\n".join(lines)


def _read(out: Path) -> pa.Table:
    path = out / "decisions.parquet"
    if not path.is_file():
        raise DataError(f"{path}: no such file; decide first")
    return parquet.ParquetFile(path, memory_map=True).read(["id", "key", "decision", *TEXTS, *SCORES])


def _differs(old: pa.ChunkedArray, new: pa.ChunkedArray) -> np.ndarray:
    """(N,) bool; no text differs from any text, not from none."""
    same = compute.coalesce(compute.equal(old, new), compute.and_(old.is_null(), new.is_null()))
    return ~same.to_numpy()


def _shift(old: pa.ChunkedArray, new: pa.ChunkedArray) -> dict[str, Any]:
    moved = compute.abs(compute.subtract(old, new))
    return {"rows": len(moved) - moved.null_count, "shift": compute.mean(moved).as_py()}


def _examples(old: pa.Table, new: pa.Table, differs: np.ndarray) -> list[dict[str, Any]]:
    at = np.flatnonzero(differs)
    first = pa.array(
        at[np.argsort(old["id"].take(pa.array(at)).to_numpy(zero_copy_only=False), kind="stable")][:EXAMPLES]
    )
    sides = (side.select(["decision", "text"]).take(first).to_pylist() for side in (old, new))
    names = old.select(["id", "key"]).take(first).to_pylist()
    return [name | {"before": was, "after": now} for name, was, now in zip(names, *sides, strict=True)]
