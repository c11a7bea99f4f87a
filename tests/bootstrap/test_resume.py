"""Whatever ends a run, the same command goes on, and what comes out is the same to the last bit."""

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from .conftest import SMALL, Command, Commands, results, until, write_pairs

OFTEN = [word for stage in ("pretrain", "captioner", "filter") for word in ("--set", f"{stage}.checkpoint_s=0")]
DROPOUT = ["--set", "model.text.dropout=0.1"]  # so that a model left in training mode would show
LONG = ["--set", "pretrain.steps=100000"]


def words(pairs: Path, out: Path) -> list[object]:
    return [*SMALL, "--pairs", pairs / "web", "--human", pairs / "human", "--out", out, *OFTEN, *DROPOUT]


def bits(out: Path) -> dict[str, bytes]:
    """Everything that must not hang on how often a run was stopped, as bytes."""
    kept = ["ledger.jsonl", "gallery.json", "gallery.npy", "truth.json", "evaluated/*", "*/*/model.safetensors"]
    kept += ["clean/*/*", "data/*/*", "tokenizer/*"]
    found = {str(path.relative_to(out)): path.read_bytes() for name in kept for path in out.glob(name)}
    return {**found, "results.json": json.dumps(results(out)).encode()}


def differing(one: dict[str, bytes], other: dict[str, bytes]) -> list[str]:
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))


def leftovers(out: Path) -> list[Path]:
    """What no finished run leaves behind."""
    return [p for name in (".*.tmp", "*.raw", "checkpoint.safetensors") for p in out.rglob(name)]


@pytest.fixture(scope="module")
def whole(capfilt: Commands, pairs: Path, tmp_path_factory) -> tuple[dict[str, bytes], int]:
    """What an uninterrupted run leaves, and in how many changes of the disk."""
    folder = tmp_path_factory.mktemp("whole")
    done = capfilt.run(*words(pairs, folder / "run"), plain=True, counted=str(folder / "changes"))
    assert done.code == 0, done.err
    return bits(folder / "run"), len((folder / "changes").read_text().splitlines())


def test_killed_again_and_again(capfilt, pairs, whole, tmp_path):
    """Each life ends before its ninth change, a half-made file in place, until one life reaches the end."""
    lives = 0
    while (done := capfilt.run(*words(pairs, tmp_path / "run"), plain=True, die=9)).code:
        assert done.code == -signal.SIGKILL, done.err
        lives += 1
        assert lives < whole[1], "a life made no progress"
    assert lives >= 5
    assert differing(whole[0], bits(tmp_path / "run")) == []
    assert leftovers(tmp_path / "run") == []


@pytest.mark.slow
def test_killed_before_every_change(capfilt, pairs, whole, tmp_path):
    for change in range(1, whole[1] + 1):
        out = tmp_path / str(change)
        assert capfilt.run(*words(pairs, out), plain=True, die=change).code == -signal.SIGKILL
        again = capfilt.run(*words(pairs, out), plain=True)
        assert again.code == 0, f"{change}: {again.err}"
        assert differing(whole[0], bits(out)) == [], f"killed before change {change}"
        assert leftovers(out) == []


def children(pid: int) -> list[int]:
    """Processes that this one started."""
    found = [row.split() for row in ps("-A", "-o", "pid=,ppid=").splitlines()]
    return [int(own) for own, parent in found if int(parent) == pid]


def alive(pid: int) -> bool:
    return ps("-o", "stat=", "-p", str(pid)).strip()[:1] not in ("", "Z")


def ps(*words: str) -> str:
    return subprocess.run(["ps", *words], capture_output=True, text=True, check=False).stdout


def test_killed_while_reading_leaves_no_process_and_no_lock(capfilt, pairs, whole, tmp_path):
    write_pairs(tmp_path / "many", 600)
    many = [*SMALL, "--pairs", tmp_path / "many", "--human", tmp_path / "many", "--out", tmp_path / "run"]
    started = capfilt.start(*many)
    until(lambda: children(started.pid) or not alive(started.pid))
    workers = children(started.pid)
    assert workers
    started.send(signal.SIGKILL)
    assert started.wait().code == -signal.SIGKILL
    until(lambda: not any(map(alive, workers)), seconds=10)
    assert capfilt.run(*words(pairs, tmp_path / "run"), plain=True).code == 2  # not 6: the lock went with its holder


@pytest.fixture(scope="module")
def training(capfilt: Commands, pairs: Path, tmp_path_factory):
    """Starts a run that trains until it is stopped; returns it and its command line."""

    def start(name: str) -> tuple[Command, list[object]]:
        out = tmp_path_factory.mktemp(name) / "run"
        line = [*words(pairs, out), *LONG]
        started = capfilt.start(*line)
        until(lambda: (out / "models/noisy/checkpoint.safetensors").is_file() or not alive(started.pid))
        return started, line

    return start


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_stopped_politely(capfilt, training, number, code):
    started, line = training(number.name)
    second = capfilt.run(*line)
    assert second.code == 6 and f"process {started.pid}" in second.line()  # one run at a time in a folder
    started.send(number)
    assert started.wait().code == code
    assert started.line().endswith("run the same command again to go on")
    out = Path(str(line[line.index("--out") + 1]))
    assert (out / "models/noisy/checkpoint.safetensors").is_file() and not list(out.rglob(".*.tmp"))
    other = capfilt.run(*line, "--set", "seed=1")
    assert other.code == 2 and "other settings" in other.line()


@pytest.mark.parametrize("largest", [100_000, 400_000], ids=["reading", "saving a model"])
def test_a_disk_that_takes_no_more(capfilt, pairs, whole, tmp_path, largest):
    full = capfilt.run(*words(pairs, tmp_path / "run"), plain=True, largest=largest)
    assert full.code == 5, full.err
    assert "File too large" in full.line() and "run the same command again" in full.line()
    assert capfilt.run(*words(pairs, tmp_path / "run"), plain=True).code == 0
    assert differing(whole[0], bits(tmp_path / "run")) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
def test_a_full_disk(capfilt, pairs, whole, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", disk], check=False).returncode:
        pytest.skip("no mounting here")
    try:
        full = capfilt.run(*words(pairs, disk / "run"), plain=True)
        assert full.code == 5 and "No space left on device" in full.line()
        subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
        again = capfilt.run(*words(pairs, disk / "run"), plain=True)
        assert again.code == 0, again.err
        assert differing(whole[0], bits(disk / "run")) == []
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_finished_run_is_not_done_again(capfilt, pairs, tmp_path):
    line = words(pairs, tmp_path / "run")
    first = capfilt.run(*line)
    assert first.code == 0, first.err
    told = ("report.html", "results.json", "plots")

    def times() -> dict[Path, int]:
        files = [p for p in (tmp_path / "run").rglob("*") if p.is_file()]
        return {p: p.stat().st_mtime_ns for p in files if p.name != ".lock" and not {*p.parts} & {*told}}

    before, numbers = times(), (tmp_path / "run/results.json").read_bytes()
    again = capfilt.run(*line)
    assert again.code == 0 and again.out == first.out
    assert times() == before
    assert (tmp_path / "run/results.json").read_bytes() == numbers  # its seconds and memory, too
