"""Does a cleaning run survive any death? It is killed over and over, and must end with the bytes of an undisturbed run.

    python -m capfilt.recipes.kill_loop runs/kills --kills 200                  one device
    python -m capfilt.recipes.kill_loop runs/kills --kills 200 --engine local   two, a process each
    python -m capfilt.recipes.kill_loop runs/kills --kills 200 --engine ray     actors of a Ray cluster

Pictures are drawn, some are spoilt, and a tiny model with random weights works on them. A run is begun and gets
SIGKILL, with all of its process group: half of the times at a random moment, half at a random change of its folder, so
that deaths also fall between two writes. Then the same command goes on, until it ends by itself. All draws are seeded,
the moments are as the machine has it. The last line is the result as JSON.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from pyarrow import parquet

from capfilt.clean.export import Choice, export_table
from capfilt.errors import CheckFailed
from capfilt.files import sha256
from capfilt.inputs.tokenizer import TextTokenizer
from capfilt.models.blip import PRESETS, Blip
from capfilt.runtime import generator, rng
from capfilt.weights.store import save

Command = Callable[[Path], Sequence[str]]
ENGINES = {"here": ("cpu", "local"), "local": ("cpu,cpu", "local"), "ray": ("cpu", "ray")}  # CAPFILT_DEVICE, --engine
ROWS, SHARD_ROWS = 96, 8
MOST_CHANGES = 24  # of a run's folder until a kill
POLL_S = 0.002
TEXTS = ["a red cube", "a small blue ball on a green box", "two cones", "the ball behind a cone", "click here"]


def kill_loop(
    work: Path,
    command: Command,
    kills: int,
    seed: int = 0,
    export: Callable[[Path, Path], object] | None = None,
) -> dict[str, Any]:
    """Kills runs of `command(folder)` so many times; → {"kills", "runs", "lost", "duplicated", "different"}.

    runs: that were whole in the end and compared. lost, duplicated: rows, of all of them, by their ids in the shards of
    rows and in the decisions. different: files that are not as the undisturbed run's, `export`'s among them.

    Raises CheckFailed for a run that ends with an error.
    """
    whole, out, log = work / "whole", work / "killed", work / "log.txt"
    shutil.rmtree(whole, ignore_errors=True)
    work.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    _finish(command(whole), log)
    lasts = time.monotonic() - began
    expected, ids = _contents(whole, export), _ids(whole)
    found = {"kills": 0, "runs": 0, "lost": 0, "duplicated": 0}
    different: set[str] = set()
    while found["kills"] < kills:
        shutil.rmtree(out, ignore_errors=True)
        while found["kills"] < kills and _killed(command(out), out, rng("kill", seed, found["kills"]), lasts, log):
            found["kills"] += 1
        _finish(command(out), log)
        contents, there = _contents(out, export), _ids(out)
        different |= {name for name in {*contents, *expected} if contents.get(name) != expected.get(name)}
        found["runs"] += 1
        found["lost"] += (ids - there).total()
        found["duplicated"] += (there - ids).total()
        print(json.dumps(found), file=sys.stderr, flush=True)
    return {**found, "different": sorted(different)}


def _killed(command: Sequence[str], out: Path, draw: np.random.Generator, lasts: float, log: Path) -> bool:
    """Begins a run and kills it; False where it ended before."""
    at_change, moment, most = draw.random() < 0.5, draw.uniform(0, lasts), int(draw.integers(1, MOST_CHANGES))
    began, changes, before = time.monotonic(), 0, _state(out)
    with _begun(command, log) as process:
        while process.poll() is None:
            now = _state(out)
            changes, before = changes + (now != before), now
            if changes >= most if at_change else time.monotonic() - began > moment:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                return True
            time.sleep(POLL_S)
    _check(process, log)
    return False


def _finish(command: Sequence[str], log: Path) -> None:
    with _begun(command, log) as process:
        process.wait()
    _check(process, log)


@contextlib.contextmanager
def _begun(command: Sequence[str], log: Path) -> Iterator[subprocess.Popen]:
    with (
        open(log, "wb") as told,
        subprocess.Popen(command, stdout=told, stderr=told, process_group=0) as process,
    ):
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def _check(process: subprocess.Popen, log: Path) -> None:
    if process.returncode:
        told = log.read_text(encoding="utf-8", errors="replace")[-2000:]
        raise CheckFailed(f"a run ended with {process.returncode} by itself:\n{told}")


def _state(out: Path) -> tuple[tuple[str, ...], int]:
    """Changes whenever a file is begun, put in place, or a shard is committed."""
    names = tuple(sorted(f"{folder}/{name}" for folder, _, files in os.walk(out) for name in files))
    with contextlib.suppress(OSError):
        return names, (out / "manifest.jsonl").stat().st_size
    return names, 0


def _contents(out: Path, export: Callable[[Path, Path], object] | None) -> dict[str, str]:
    """SHA-256 of all that may not hang on how a run went; files that should not be there are among them."""
    paths = [out / "flags.parquet", out / "decisions.parquet", *out.glob("rows/*"), *out.glob("scores/*")]
    found = {str(path.relative_to(out)): sha256(path) for path in (*paths, *out.glob(".*.tmp")) if path.exists()}
    if export:
        table = out.with_suffix(".jsonl")
        table.unlink(missing_ok=True)
        export(out, table)
        found["export"] = sha256(table)
    return found


def _ids(out: Path) -> Counter[tuple[str, str]]:
    """How often each row is there, in the shards of rows and in the decisions."""
    tables = {"rows": sorted(out.glob("rows/*.parquet")), "decisions": [out / "decisions.parquet"]}
    return Counter(
        (name, row)
        for name, paths in tables.items()
        for path in paths
        for row in parquet.read_table(path, columns=["id"])["id"].to_pylist()
    )


def collection(folder: Path, rows: int = ROWS) -> Path:
    """Draws pictures, most with a text; some are cut short, some twice there, one has no image."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(rows):
        path = folder / f"{i:03d}.jpg"
        drawn = i - 1 if i % 11 == 5 else i
        noise = rng("picture", drawn).integers(0, 256, (8, 10, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((160, 120)).save(path)
        if i % 13 == 7:
            path.write_bytes(path.read_bytes()[:300])
        if i % 3:
            path.with_suffix(".txt").write_text(f"{TEXTS[i % len(TEXTS)]} {i}", encoding="utf-8")
    return folder


def model(folder: Path) -> Path:
    """Saves a tiny captioner and filter in one, whose weights are random and large."""
    words = TextTokenizer.train(TEXTS, 64)
    blip = Blip(dataclasses.replace(PRESETS["tiny"].with_words(words), queue=0))
    numbers = generator("kill loop")
    with torch.no_grad():
        for weight in blip.parameters():
            if weight.ndim:
                weight.normal_(0, 0.25, generator=numbers)
    save(blip, words, folder)
    return folder


def cleaning(work: Path, engine: str, address: str | None) -> Command:
    """The command that cleans the collection."""
    source, weights = str(collection(work / "pictures")), str(model(work / "model"))
    device, name = ENGINES[engine]
    where = ["--engine", name, *(["--ray-address", address] if address else [])]
    sets = [f"--set=shard_rows={SHARD_ROWS}", "--set=workers=1", "--precision=fp32"]

    def command(out: Path) -> list[str]:
        clean = [sys.executable, "-m", "capfilt", "clean", source, "-o", str(out)]
        return ["env", f"CAPFILT_DEVICE={device}", *clean, "--captioner", weights, "--filter", weights, *sets, *where]

    return command


def exported(run: Path, to: Path) -> None:
    """Writes the table that scripts count on."""
    export_table(run, str(to), "jsonl", Choice())


@contextlib.contextmanager
def cluster(engine: str) -> Iterator[str | None]:
    """The address of a Ray cluster that outlives the runs, where the engine is one."""
    if engine != "ray":
        yield None
        return
    import ray

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        yield ray.get_runtime_context().gcs_address
    finally:
        ray.shutdown()


def main(arguments: Sequence[str] | None = None) -> None:
    """The commands above; raises CheckFailed where a row or a byte is not as it should be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path, help="a folder for pictures, model and runs")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--engine", choices=tuple(ENGINES), default="here")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    os.environ.setdefault("CAPFILT_PROGRESS", "none")
    with cluster(given.engine) as address:
        command = cleaning(given.work, given.engine, address)
        found = kill_loop(given.work, command, given.kills, given.seed, exported)
    print(json.dumps({"engine": given.engine, **found}))
    if found["lost"] or found["duplicated"] or found["different"]:
        raise CheckFailed(f"{given.work}: not what an undisturbed run gives: {found}")


if __name__ == "__main__":
    main()
