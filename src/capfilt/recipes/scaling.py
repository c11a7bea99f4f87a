"""How the work grows with cores, processes and rows.

    python -m capfilt.recipes.scaling                                   # some 6 minutes; adds to bench/results.json
    python -m capfilt.recipes.scaling --rows "caption-2-cores match-2-cores"

`train-2-processes`  two processes of `torchrun` on a core each against one process on one core, the same joint batch
`caption-2-cores`, `match-2-cores`  a model of base size (384 px, random weights, fp32) on two cores against one
`rows-1k-100k`       processor seconds a row of captions in shards and a ledger, among 100,000 rows against among 1,000

A row's ratio is `peer_s` (of `peer`: one process, one core, the fewer rows) over `ours_s`, both seconds `each` pair,
image or row: the median over rounds in which both ran by turns. The fewer rows run anew between the shards of the many.
"""

import argparse
import contextlib
import dataclasses
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from capfilt.blocks.med import SpecialIds
from capfilt.clean.decide import Rule, bar, decide
from capfilt.clean.shards import Rows, in_shards
from capfilt.data.table import Batches, Feeding, PairTable
from capfilt.errors import CheckFailed, ConfigError
from capfilt.files import read_json, read_jsonl, write_json, write_jsonl
from capfilt.inputs.tokenizer import TextTokenizer
from capfilt.models.blip import PRESETS, Blip, BlipConfig, Objective
from capfilt.pair import Row
from capfilt.predict.decode import Decoding
from capfilt.predict.predictor import Predictor
from capfilt.predict.ready import ready
from capfilt.ranks import from_environment
from capfilt.recipes.bench.work import RESULTS
from capfilt.runtime import calm_allocator, derive, machine, rng
from capfilt.train.loop import fit
from capfilt.train.schedule import Schedule
from capfilt.train.settings import TrainConfig

BATCH, STEPS = 128, 24  # pairs of a joint step, steps of a run
WINDOW = 6  # steps of a reading; the first reading of a run is left out
IMAGES, TEXTS, WRITTEN = 4, 4, 20  # images at once, texts an image to match, ids of a caption
FEW, MANY = 1_000, 100_000  # rows
BASE_384 = dataclasses.replace(PRESETS["base"], vit=dataclasses.replace(PRESETS["base"].vit, px=384))
MODULE = "capfilt.recipes.scaling"


def scaling(names: Sequence[str] = (), out: Path = RESULTS, rounds: int = 3) -> dict[str, Any]:
    """Measures the rows named, or all, prints a line each and writes them to `out` under `scaling`.

    Raises ConfigError for an unknown row, and CheckFailed on a machine with one core.
    """
    unknown = sorted(set(names) - set(ROWS))
    if unknown:
        raise ConfigError(f"scaling: no row {', '.join(unknown)}; there are {', '.join(ROWS)}")
    if len(cores()) < 2:
        raise CheckFailed("scaling: needs two cores, this process may use one")
    here = machine()
    results = read_json(out) if out.is_file() else {"machine": here}
    if results.get("machine") != here:
        print(f"{out}: of another machine; it is written anew", flush=True)
        results = {"machine": here}
    found = results.setdefault("scaling", {})
    for name in names or ROWS:
        goal, each, peer, measure = ROWS[name]
        found[name] = row = {**measure(rounds), "goal": goal, "each": each, "peer": peer}
        write_json(out, results)
        spread = f"{row['low']:.2f} to {row['high']:.2f}, goal {goal}"
        seconds = f"{row['ours_s']:.3g} s against {row['peer_s']:.3g} s for each {each}"
        print(f"{name}: {row['ratio']:.2f}x ({spread}) {peer}: {seconds}", flush=True)
    return found


# ---- training -------------------------------------------------------------------------------------------------------


def train_two(rounds: int) -> dict[str, Any]:
    """Seconds a pair of the demo's model."""
    seconds: list[tuple[float, float]] = []
    for _ in range(rounds):
        with TemporaryDirectory() as folder:
            seconds.append((_trained(Path(folder) / "two", 2), _trained(Path(folder) / "one", 1)))
    return _ratio(seconds)


def _trained(out: Path, processes: int) -> float:
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command = [sys.executable, *launch, "-m", MODULE, "--train", str(out)]
    subprocess.run(command, env=_environment(1), check=True, stdout=subprocess.DEVNULL)
    speeds = [row["pairs_per_s"] for row in read_jsonl(out / "metrics.jsonl")]
    return 1 / median(speeds[1:])


def train(out: Path, steps: int = STEPS) -> None:
    """One rank of a run on noise, on a core of its own."""
    ranks = from_environment()
    allowed = cores()
    _keep_to([allowed[ranks.rank % len(allowed)]])
    tokenizer, random = _tokenizer(), rng("scaling", "pictures")
    px = PRESETS["demo"].vit.px
    pixels = random.integers(0, 256, (4 * BATCH, px, px, 3), np.uint8)
    words = random.integers(0, 40, (len(pixels), 12))
    table = PairTable.of(pixels, [[" ".join(f"word{i}" for i in row)] for row in words])
    model = Blip(PRESETS["demo"].with_words(tokenizer)).init_weights()
    config = TrainConfig(steps, BATCH, Schedule(rate=1e-4), precision="fp32", log_every=WINDOW, checkpoint_s=1e9)
    fit(model, Batches(table, tokenizer, Feeding(BATCH, 0, px)), Objective(), config, out, "scaling", ranks)
    if ranks.world > 1:
        torch.distributed.destroy_process_group()


# ---- captions and matches -------------------------------------------------------------------------------------------


def two_cores(rounds: int, work: str) -> dict[str, Any]:
    """Seconds an image, by two processes that wait for each other: one keeps to one core, one has two."""
    with _server(cores()[:2]) as two, _server(cores()[:1]) as one:
        for server in (two, one):
            server(work)  # once to warm up
        return _ratio([(two(work), one(work)) for _ in range(rounds)])


@contextlib.contextmanager
def _server(allowed: Sequence[int]) -> Iterator[Callable[[str], float]]:
    """A process on these cores that, asked for a work, does it and answers with its seconds an image."""
    command = [sys.executable, "-m", MODULE, "--serve", ",".join(map(str, allowed))]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=_environment(len(allowed))) as process:
        assert process.stdin is not None and process.stdout is not None
        asked, answers = process.stdin, process.stdout

        def ask(work: str) -> float:
            print(work, file=asked, flush=True)
            answer = answers.readline()
            if not answer:
                raise CheckFailed(f"scaling: the process that measures {work} ended; what it said is above")
            return float(answer)

        yield ask


def serve(allowed: Sequence[int], config: BlipConfig) -> None:
    """Works on what comes in, line by line, as a model does that `capfilt.load` made."""
    _keep_to(allowed)
    calm_allocator()
    tokenizer = _tokenizer()
    config = dataclasses.replace(config, special=SpecialIds(**tokenizer.marks), queue=0)
    torch.manual_seed(0)
    predictor = Predictor(ready(Blip(config).init_weights().eval(), "fp32"), tokenizer)
    pixels = rng("scaling", "pixels").integers(0, 256, (IMAGES, config.vit.px, config.vit.px, 3), np.uint8)
    decoding = Decoding(method="greedy", max_length=WRITTEN, min_length=WRITTEN)
    texts = [[f"word{i} word{j} word{i + j} and more of it" for j in range(TEXTS)] for i in range(IMAGES)]
    works: dict[str, Callable[[], object]] = {
        "caption": lambda: predictor.caption(pixels, range(IMAGES), decoding),
        "match": lambda: predictor.match(pixels, texts),
    }
    for line in sys.stdin:
        began = time.perf_counter()
        works[line.strip()]()
        print((time.perf_counter() - began) / IMAGES, flush=True)


# ---- rows -----------------------------------------------------------------------------------------------------------


def many_rows(rounds: int, few: int = FEW, many: int = MANY) -> dict[str, Any]:
    """Processor seconds a row of a tiny model's captions, their shards, the decisions and the ledger, in one thread.

    On the clock a slow disk would hide growth: the few wait for a ledger of their own, the many share one.
    """
    tokenizer, threads = _tokenizer(), torch.get_num_threads()
    config = PRESETS["tiny"].with_words(tokenizer)
    torch.manual_seed(0)
    predictor = Predictor(Blip(config).init_weights().eval(), tokenizer)
    torch.set_num_threads(1)  # two wait for each other at every step, and for whatever else runs
    try:
        _seconds(predictor, few)  # once to warm up
        return {**_ratio([_by_turns(predictor, few, many) for _ in range(rounds)]), "rows": [few, many]}
    finally:
        torch.set_num_threads(threads)


def _by_turns(predictor: Predictor, few: int, many: int) -> tuple[float, float]:
    """Seconds a row among the many and among the few, which run once for each shard of the many."""
    fewer: list[float] = []
    both = _seconds(predictor, many, lambda: fewer.append(_seconds(predictor, few)))
    return (both - sum(fewer)) / many, sum(fewer) / len(fewer) / few


def _seconds(predictor: Predictor, total: int, between: Callable[[], None] = lambda: None) -> float:
    px, decoding = predictor.model.config.vit.px, Decoding(method="greedy", max_length=8, min_length=8)

    def work(start: int, stop: int) -> Rows:
        between()
        pixels = rng("scaling", start).integers(0, 256, (stop - start, px, px, 3), np.uint8)
        said = predictor.caption(pixels, [derive(i) for i in range(start, stop)], decoding)
        return [{"text": caption.text, "score": i % 97 / 97} for i, caption in enumerate(said)]

    began = time.process_time()
    with TemporaryDirectory() as folder:
        rows = in_shards(Path(folder), "rows", total, work, {"of": "scaling"})
        rule = Rule(kind="top")
        threshold = bar(rule, [row["score"] for row in rows], [])
        made = (Row(str(i), "kept", "", "a web text", row["text"], 0.5, row["score"]) for i, row in enumerate(rows))
        write_jsonl(Path(folder) / "ledger.jsonl", [vars(decide(row, threshold, rule)) for row in made])
    return time.process_time() - began


# ---- what they share ------------------------------------------------------------------------------------------------


def cores() -> list[int]:
    """The numbers of the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _keep_to(allowed: Sequence[int]) -> None:
    torch.set_num_threads(len(allowed))
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, allowed)


def _environment(threads: int) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": str(threads), "CAPFILT_PROGRESS": "none", "CAPFILT_DEVICE": "cpu"}


def _tokenizer() -> TextTokenizer:
    return TextTokenizer.train([f"word{i} and more of it" for i in range(40)], 200)


def _ratio(seconds: Sequence[tuple[float, float]]) -> dict[str, Any]:
    """(ours, peer) of each round → the columns of a row."""
    ratios = [peer / ours for ours, peer in seconds]
    ours, peers = zip(*seconds, strict=True)
    return {
        **{"ours_s": float(f"{median(ours):.4g}"), "peer_s": float(f"{median(peers):.4g}")},
        **{"ratio": round(median(ratios), 3), "low": round(min(ratios), 3), "high": round(max(ratios), 3)},
        "rounds": len(ratios),
    }


ROWS: dict[str, tuple[float, str, str, Callable[[int], dict[str, Any]]]] = {  # name → goal, each, peer, how
    "train-2-processes": (1.6, "pair", "one process", train_two),
    "caption-2-cores": (1.8, "image", "one core", lambda rounds: two_cores(rounds, "caption")),
    "match-2-cores": (1.8, "image", "one core", lambda rounds: two_cores(rounds, "match")),
    "rows-1k-100k": (0.9, "row", f"{FEW} rows", many_rows),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """The commands above; --train and --serve are for the processes that these start."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="", help="names, all if none")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--train", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.train is not None:
        train(given.train)
    elif given.serve is not None:
        serve([int(core) for core in given.serve.split(",")], BASE_384)
    else:
        os.environ["CAPFILT_PROGRESS"] = "none"  # hundreds of bars of the fewer rows, which would also count as theirs
        scaling(given.rows.split(), given.out, given.rounds)
        print(given.out)


if __name__ == "__main__":
    main()
