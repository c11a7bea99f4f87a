"""No regressions: ratios that a kind of CPU has reached before, and which rows have fallen below them.

`bench/baseline.json` holds {kind of CPU: {row: ratio}}. Ratios, not seconds: those change from day to day.

    python -m capfilt.recipes.bench.baseline    # takes over the ratios of bench/results.json, after a quiet run
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from capfilt.files import read_json, write_json
from capfilt.recipes.bench.work import RESULTS

BASELINE = Path("bench/baseline.json")
LOST = 0.15  # share of the committed ratio that a row may lose


def kind(machine: Mapping[str, Any]) -> str:
    """What a machine's ratios are comparable by: the instructions that matter, and how many threads.

    >>> kind({"isa": ["avx2", "avx512f", "avx512_bf16", "avx512_vnni"], "threads": 2})
    'avx512_bf16+avx512_vnni, 2 threads'
    """
    isa = machine["isa"]
    known = [name for name in ("avx512_bf16", "avx512_vnni", "amx_bf16", "amx_int8") if name in isa]
    return f"{'+'.join(known) or 'plain'}, {machine['threads']} threads"


def fallen(results: Mapping[str, Any], baseline: Mapping[str, Mapping[str, float]]) -> list[str]:
    """One line for each row whose ratio is more than 15% below that of this kind of CPU. Rows of one side only pass."""
    before = baseline.get(kind(results["machine"]), {})
    return [
        f"{name}: {row['ratio']:.2f}x its peer, {1 - row['ratio'] / before[name]:.0%} below the {before[name]:.2f}x of "
        "bench/baseline.json"
        for name, row in results["rows"].items()
        if name in before and row["ratio"] < (1 - LOST) * before[name]
    ]


def taken_over(
    results: Mapping[str, Any], baseline: Mapping[str, Mapping[str, float]]
) -> dict[str, Mapping[str, float]]:
    """The baseline with this machine's ratios in the place of those of its kind; rows not measured now stay."""
    own = kind(results["machine"])
    ratios = {name: row["ratio"] for name, row in results["rows"].items() if row["goal"] is not None}
    return {**baseline, own: {**baseline.get(own, {}), **ratios}}


if __name__ == "__main__":
    write_json(BASELINE, taken_over(read_json(RESULTS), read_json(BASELINE)))
