"""No regressions: a few quick rows, timed now, against the committed ratios of this kind of CPU (`make speed`)."""

import os
import subprocess
import sys

import pytest

from capfilt.files import read_json
from capfilt.recipes.bench.baseline import fallen, kind

QUICK = ("encode-fp32-b1", "encode-bf16-b1", "greedy-fp32-b1", "greedy-bf16-b1", "beam3-bf16-b1")
QUICK += ("match-1x16-fp32", "match-16x1-bf16", "step-demo-fp32")


@pytest.mark.speed
def test_no_quick_row_has_fallen(root, tmp_path):
    baseline = read_json(root / "bench" / "baseline.json")
    out = tmp_path / "results.json"
    # In a process of its own: here shapes are checked at every call, and torch has one thread.
    environment = {**os.environ, "PYTHONPATH": str(root / "src")}
    environment.pop("OMP_NUM_THREADS", None)
    command = [sys.executable, "-m", "capfilt", "bench", "--rows", " ".join(QUICK), "--out", str(out)]
    subprocess.run(command, cwd=tmp_path, env=environment, check=True)
    results = read_json(out)
    if kind(results["machine"]) not in baseline:
        pytest.skip(f"bench/baseline.json has no ratios of this kind of CPU: {kind(results['machine'])}")
    assert set(results["rows"]) & set(baseline[kind(results["machine"])]), "no row was compared"
    assert not fallen(results, baseline)
