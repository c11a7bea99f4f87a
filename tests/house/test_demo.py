"""The README's promise: one command, a table on the terminal, a page on the disk, and the same command goes on."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run(*words: str, cwd: Path) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "CAPFILT_PROGRESS": "json"}
    return subprocess.run(
        [sys.executable, "-m", "capfilt", *words],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )


def test_make_demo_is_bootstrap():
    outer = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}  # tests run under make
    done = subprocess.run(
        ["make", "-n", "demo", "ARGS=--seed 7"], cwd=ROOT, env=outer, capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines()[-1] == ".venv/bin/capfilt bootstrap --out runs/demo --seed 7"


@pytest.mark.slow
def test_a_cut_down_demo_ends_with_a_table_and_a_page(tmp_path):
    first = run("bootstrap", "--recipe", "smoke", "--out", "runs/demo", cwd=tmp_path)
    assert first.returncode == 0, first.stderr[-2000:]
    assert len(first.stdout.splitlines()) > 3
    assert first.stdout.splitlines()[-1] == "runs/demo/report.html"
    page = (tmp_path / "runs/demo/report.html").read_text(encoding="utf-8")
    assert "</html>" in page and "<script src" not in page and "<link" not in page  # one file, no network

    again = run("bootstrap", "--recipe", "smoke", "--out", "runs/demo", cwd=tmp_path)
    assert again.returncode == 0, again.stderr[-2000:]
    assert again.stdout == first.stdout
    assert '"stage": "models' in first.stderr
    assert '"stage"' not in again.stderr  # what was done is not done again

    measured = run("eval", "runs/demo", "--json", cwd=tmp_path)
    assert measured.returncode == 0, measured.stderr[-2000:]
    assert run("report", "runs/demo", cwd=tmp_path).returncode == 0
