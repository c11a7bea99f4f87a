"""`capfilt study`: the demo over several seeds, with every ablation and control, to tell an effect from luck.

The paper has no control for what the human pairs alone would do; here are two (`human` and `share`). Seeds run side by
side, one thread each; every run resumes where it was, and a seed with numbers in the results file is not run again.
"""

import multiprocessing
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import closing
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from capfilt.bootstrap.config import VARIANTS, BootstrapConfig, Variant
from capfilt.clean.decide import joint_score
from capfilt.config import fingerprint
from capfilt.evaluate.cleaning import filter_report
from capfilt.evaluate.intervals import t_interval
from capfilt.files import lease, read_json, read_jsonl, write_json, write_text
from capfilt.recipes.demo import demo
from capfilt.report import results_json
from capfilt.runtime import sigterm_raises, usable_cores

T = TypeVar("T")

ARMS: tuple[Variant, ...] = ("noisy", "filter", "captioner", "bootstrapped", "human", "share")
MEASURES = ("tr1", "ir1", "cider", "truth", "coverage")
FILTER = ("auc_swap", "auc_attribute", "auc_junk")
FILTERS = {
    "filter": "as used",
    "filter_itm_alone": "its matching head alone, as in the paper",
    "filter_first_round": "both heads, before its second round",
}
PAPER = {  # Table 1, 14M, ViT-B: COCO retrieval TR@1 / IR@1, caption CIDEr, in percent and points
    "noisy": (78.4, 60.7, 127.8),
    "filter": (79.1, 61.5, 128.2),
    "captioner": (79.7, 62.0, 128.9),
    "bootstrapped": (80.6, 63.1, 129.7),
}


def study(seeds: int, out: Path, results: Path | None = None, jobs: int | None = None) -> dict[str, Any]:
    """Runs the demo with seeds 0 to `seeds` - 1 and all arms; writes `study.json` and `study.md` into `out`.

    results: a file of earlier seeds to go on from, by the same settings; `out`/study.json unless told.
    jobs:    runs side by side; as many as there are processor cores unless told.
    """
    results = results or out / "study.json"
    mark = fingerprint(_config(0).outcome())
    known = read_json(results) if results.is_file() else {}
    runs = known.get("seeds", {}) if known.get("settings") == mark else {}
    todo = [seed for seed in range(seeds) if str(seed) not in runs]
    jobs = min(jobs or usable_cores(), seeds)
    threads = max(1, usable_cores() // jobs)  # by the whole study, not by what is left: the same when resumed
    work = partial(one_seed, out=out, threads=threads)
    with lease(out), sigterm_raises(), closing(_side_by_side(work, todo, jobs)) as ended:
        for seed, run in ended:
            runs[str(seed)] = run
            found = {"settings": mark, "threads": threads, "seeds": dict(sorted(runs.items()))}
            write_json(results, {**found, "gains": gains(runs)})
    write_text(results.with_suffix(".md"), table(runs))
    print(table(runs))
    return read_json(results)


def _side_by_side(work: Callable[[Any], T], todo: Iterable[Any], jobs: int) -> Generator[tuple[Any, T], None, None]:
    """(what, result) of each as it ends, `jobs` at a time in processes that stop with this one, whatever stops it.

    A process is given its next only when it is free: one that was told to stop and has saved finds nothing to begin.
    """
    pool = ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn"))
    waiting, running = iter(todo), dict[Future, Any]()
    try:
        while True:
            running |= {pool.submit(work, one): one for one in islice(waiting, jobs - len(running))}
            if not running:
                break
            done = next(as_completed(running))
            yield running.pop(done), done.result()
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)  # first: a process that has saved would wait for its next
        children = multiprocessing.active_children()
        for child in children:
            child.terminate()
        for child in children:
            child.join()
        raise
    pool.shutdown()


def one_seed(seed: int, out: Path, threads: int) -> dict[str, Any]:
    """One run of the demo with every arm: what each model reached, the filter's numbers, the seconds."""
    import torch

    from capfilt.bootstrap.rounds import bootstrap

    torch.set_num_threads(threads)
    folder = out / f"seed-{seed}"
    report = bootstrap(_config(seed), folder, ARMS)
    told = results_json(report)
    models = {arm: read_json(folder / "evaluated" / f"{arm}.json")["summary"] for arm in ARMS}
    short = {arm: {m: round(summary[m], 5) for m in MEASURES} for arm, summary in models.items()}
    return {
        "models": short,
        "filter": told["filter"],
        "filter_itm_alone": _aucs(folder, "", itc=0.0),
        "filter_first_round": _aucs(folder, "-1", _config(seed).rule.itc),
        "counts": told["counts"],
        "seconds": told["seconds"],
    }


def _aucs(folder: Path, turn: str, itc: float) -> dict[str, float]:
    """How well a round of the filter tells each family of noise, from the scores that the run left."""
    kinds, match = zip(*read_json(folder / "truth.json")["web"].values(), strict=True)
    rows = [row for shard in sorted(folder.glob(f"clean/web{turn}/0*.jsonl")) for row in read_jsonl(shard)]
    found = filter_report([joint_score(row["itm"], row["itc"], itc) for row in rows], match, kinds, 0.5)
    return {name: found[name] for name in FILTER}


def gains(runs: dict[str, Any]) -> dict[str, Any]:
    """Bootstrapped minus each other arm: mean and 95% interval over the seeds (Student's t), where there are two."""
    if len(runs) < 2:
        return {}
    found: dict[str, Any] = {}
    for arm in ARMS:
        if arm == "bootstrapped":
            continue
        models = [run["models"] for run in runs.values()]
        found[arm] = {m: t_interval([x["bootstrapped"][m] - x[arm][m] for x in models]) for m in MEASURES}
    return found


def table(runs: dict[str, Any]) -> str:
    """Means over the seeds beside the paper's Table 1, then the gains with their intervals, as Markdown."""
    models = [run["models"] for run in runs.values()]
    lines = [
        f"Means over {len(runs)} seeds, drawn world, held-out clean test.",
        "",
        "| training set | TR@1 | IR@1 | CIDEr-D | truth | coverage | paper: TR@1, IR@1, CIDEr |",
        "|---|---|---|---|---|---|---|",
    ]
    for arm in ARMS:
        means = [sum(x[arm][m] for x in models) / len(models) for m in MEASURES]
        paper = ", ".join(f"{v:.1f}" for v in PAPER[arm]) if arm in PAPER else "not in the paper"
        lines.append(f"| {arm}: {VARIANTS[arm]} | " + " | ".join(f"{v:.3f}" for v in means) + f" | {paper} |")
    lines += ["", "| bootstrapped minus | TR@1 | IR@1 | CIDEr-D | truth | coverage |", "|---|---|---|---|---|---|"]
    for other, gained in gains(runs).items():
        cells = [f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]" for mean, low, high in (gained[m] for m in MEASURES)]
        lines.append(f"| {other} | " + " | ".join(cells) + " |")
    lines += ["", "| filter's AUC, mean (worst) | swapped | one attribute wrong | junk |", "|---|---|---|---|"]
    for key, what in FILTERS.items():
        values = [[run[key][name] for run in runs.values()] for name in FILTER]
        lines.append(f"| {what} | " + " | ".join(f"{sum(v) / len(v):.4f} ({min(v):.4f})" for v in values) + " |")
    return "\n".join(lines) + "\n"


def _config(seed: int) -> BootstrapConfig:
    return demo(seed=seed)
