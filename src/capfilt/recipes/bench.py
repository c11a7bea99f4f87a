"""`capfilt bench`: ours against the plain way of writing it, in one process, by turns, on this machine."""

import dataclasses
import gc
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F

from capfilt.blocks import attention
from capfilt.blocks.linear import linear
from capfilt.errors import CheckFailed
from capfilt.files import write_json
from capfilt.models.blip import PRESETS, Blip, BlipConfig, Objective
from capfilt.objectives.matching import draw
from capfilt.pair import Batch
from capfilt.progress import Progress
from capfilt.recipes.plain_step import padded, plain_losses
from capfilt.runtime import generator, machine

# row → (model, pairs a batch, precision, goal of the ratio)
STEPS: dict[str, tuple[str, int, str, float]] = {
    "train-step-demo": ("demo", 64, "fp32", 1.6),
    "train-step-base-224-fp32": ("base", 4, "fp32", 1.45),
    "train-step-base-224-bf16": ("base", 4, "bf16", 1.45),
}
KERNELS = [(dtype, keys) for dtype in (torch.float32, torch.bfloat16) for keys in (16, 197)]
FEW_ROWS = [(rows, words) for rows in (2, 3, 4) for words in (3072, 30524)]
LENGTHS = (8, 16)  # text lengths, uniform; web captions average 12 tokens


def bench(short: bool, out: Path) -> dict[str, Any]:
    """Times every row and writes `results.json`: the median of per-round ratios, their spread, the seconds behind them.

    short: three rounds of the demo's step, and the products of few rows, instead of all rows.
    """
    rows = dict(list(STEPS.items())[:1]) if short else STEPS
    results: dict[str, Any] = {"machine": machine(), "rows": {}}
    for name, (preset, size, precision, goal) in rows.items():
        results["rows"][name] = {"goal": goal, **step_ratio(name, PRESETS[preset], size, precision, 3 if short else 9)}
        write_json(out / "results.json", results)
        row = results["rows"][name]
        print(f"{name}: {row['ratio']:.2f}x the plain step (goal {goal}), {row['ours_s'] * 1000:.0f} ms a step")
    if not short:
        results["rows"]["train-step-demo-compiled"] = row = compiled_ratio("train-step-demo-compiled", 9)
        print(f"train-step-demo-compiled: {row['ratio']:.2f}x the same step, {row['compiling_s']:.0f} s to compile")
        for dtype, keys in KERNELS:
            name = f"attention-{str(dtype).removeprefix('torch.')}-{keys}-keys"
            results["rows"][name] = row = kernel_ratio(name, dtype, keys, 9)
            print(f"{name}: plain matmuls {row['ratio']:.2f}x as fast as the fused kernel")
    for few, words in FEW_ROWS:
        name = f"linear-{few}-rows-into-{words}"
        results["rows"][name] = row = linear_ratio(name, few, words, 9)
        print(f"{name}: turned around {row['ratio']:.2f}x as fast as torch's linear map")
    write_json(out / "results.json", results)
    return results


def step_ratio(name: str, config: BlipConfig, size: int, precision: str, rounds: int) -> dict[str, Any]:
    """Seconds of the plain step over seconds of ours. The two must agree in every loss first."""
    text = dataclasses.replace(config.text, dropout=0.0)
    config = dataclasses.replace(config, text=text, queue=min(config.queue, 2048))
    batch = _batch(config, size)
    ours, plain = _Trainer(config, precision), _Trainer(config, precision)
    objective = Objective()
    uniform = torch.rand(2, size, generator=generator("bench"))

    def our_step() -> dict[str, torch.Tensor]:
        return ours.step(partial(ours.model.losses, batch, objective, 0.4, uniform))

    drawn = _drawn(config, batch, objective, uniform)
    fixed = padded(batch)

    def plain_step() -> dict[str, torch.Tensor]:
        with _attention(plain=True):
            return plain.step(partial(plain_losses, plain.model, fixed, objective, 0.4, drawn))

    first, second = our_step(), plain_step()
    worst = max(abs(first[k].item() - second[k].item()) for k in first)
    if worst > (1e-3 if precision == "fp32" else 5e-2):
        raise CheckFailed(f"{name}: the two steps differ by {worst:.2g} in a loss; they must be the same work")
    seconds = _by_turns(name, {"ours": our_step, "plain": plain_step}, rounds)
    return {**_ratio(seconds, "plain", "ours"), "batch": size, "largest_loss_difference": worst}


def compiled_ratio(name: str, rounds: int) -> dict[str, Any]:
    """Seconds of the demo's step over seconds of the same step through torch.compile, and what compiling it took."""
    config = dataclasses.replace(PRESETS["demo"], text=dataclasses.replace(PRESETS["demo"].text, dropout=0.0))
    batches = [_batch(config, 64, below) for below in (16, 15, 14)]  # the second length makes it compile for any
    eager, compiled = _Trainer(config, "fp32"), _Trainer(config, "fp32")
    losses = torch.compile(compiled.model.losses)
    uniform = torch.rand(2, 64, generator=generator("bench"))
    began = time.perf_counter()
    for batch in batches:
        compiled.step(partial(losses, batch, Objective(), 0.4, uniform))
    compiling = time.perf_counter() - began
    works = {
        "compiled": partial(compiled.step, partial(losses, batches[0], Objective(), 0.4, uniform)),
        "eager": partial(eager.step, partial(eager.model.losses, batches[0], Objective(), 0.4, uniform)),
    }
    return {**_ratio(_by_turns(name, works, rounds), "eager", "compiled"), "compiling_s": round(compiling, 1)}


def kernel_ratio(name: str, dtype: torch.dtype, keys: int, rounds: int) -> dict[str, Any]:
    """Seconds of torch's fused attention over seconds of plain matmuls, forward and backward, 12 heads of 64."""
    random = generator("bench", keys)
    q, k, v = (
        torch.randn(4096 // keys, keys, 12, 64, generator=random).to(dtype).transpose(1, 2).requires_grad_()
        for _ in range(3)
    )

    def attend(plain: bool) -> None:
        with _attention(plain):
            for _ in range(5):
                attention.attend(q, k, v).sum().backward()

    works = {"plain": partial(attend, True), "fused": partial(attend, False)}
    return _ratio(_by_turns(name, works, rounds), "fused", "plain")


def linear_ratio(name: str, rows: int, words: int, rounds: int) -> dict[str, Any]:
    """Seconds of torch's linear map over seconds of ours, a few fp32 rows of 768, weights not in cache."""
    random = generator("bench", rows)
    weights = [torch.randn(words, 768, generator=random) for _ in range(max(2, 2**26 // (words * 768)))]
    x, bias = torch.randn(rows, 768, generator=random), torch.zeros(words)

    def through(map_: Callable[..., torch.Tensor]) -> None:
        with torch.inference_mode():
            for weight in weights:
                map_(x, weight, bias)

    works = {"ours": partial(through, linear), "torch": partial(through, F.linear)}
    return _ratio(_by_turns(name, works, rounds), "torch", "ours")


def _ratio(seconds: dict[str, list[float]], other: str, ours: str) -> dict[str, Any]:
    ratios = [b / a for a, b in zip(seconds[ours], seconds[other], strict=True)]
    return {
        "ratio": round(median(ratios), 3),
        "spread": [round(min(ratios), 3), round(max(ratios), 3)],
        f"{ours}_s": round(median(seconds[ours]), 4),
        f"{other}_s": round(median(seconds[other]), 4),
        "rounds": len(ratios),
    }


class _Trainer:
    def __init__(self, config: BlipConfig, precision: str):
        torch.manual_seed(0)
        self.model = Blip(config).init_weights().train()
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.optimiser = torch.optim.AdamW(parameters, 1e-5, fused=True)
        self.autocast = torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16")

    def step(self, losses: Callable[[], Mapping[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        """Forward, backward, update."""
        with self.autocast:
            found = losses()
        torch.stack(list(found.values())).sum().backward()
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        return {k: v.detach() for k, v in found.items()}


def _batch(config: BlipConfig, size: int, below: int = LENGTHS[1]) -> Batch:
    g = generator("bench", "batch")
    lengths = torch.randint(LENGTHS[0], below, (size,), generator=g)
    longest = int(lengths.max())
    mask = (torch.arange(longest) < lengths[:, None]).long()
    ids = torch.randint(10, config.text.vocab - 2, (size, longest), generator=g) * mask
    pixels = torch.randn(size, 3, config.vit.px, config.vit.px, generator=g)
    return Batch(pixels, ids, mask, torch.arange(size), torch.arange(size))


def _drawn(config: BlipConfig, batch: Batch, objective: Objective, uniform: torch.Tensor):
    from capfilt.ranks import Ranks

    torch.manual_seed(0)
    model = Blip(config).init_weights()
    with torch.no_grad():
        compared = model.compare(batch, model.vit(batch.pixels), objective)
        odds = model.negative_odds(compared, batch, objective, Ranks())
    return tuple(draw(o, u)[0] for o, u in zip(odds, uniform, strict=True))


@contextmanager
def _attention(plain: bool) -> Iterator[None]:
    before = attention.plain
    attention.plain = lambda q: plain
    try:
        yield
    finally:
        attention.plain = before


def _by_turns(name: str, works: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each work in each quiet round; a round in which others used the processor is done again."""
    seconds: dict[str, list[float]] = {k: [] for k in works}
    for work in works.values():
        work()
    tries = 0
    with Progress(name, rounds) as bar:
        while len(seconds[next(iter(works))]) < rounds:
            gc.collect()
            tries += 1
            busy, own, taken = _busy_s(), time.process_time(), {}
            for key, work in works.items():
                began = time.perf_counter()
                work()
                taken[key] = time.perf_counter() - began
            foreign = (_busy_s() - busy) - (time.process_time() - own)
            if foreign > 0.1 * sum(taken.values()) and tries < 5 * rounds:
                continue
            for key in works:
                seconds[key].append(taken[key])
            bar.update(len(seconds[next(iter(works))]))
    return seconds


def _busy_s() -> float:
    """Processor seconds that everyone has used since the machine started; 0 where that is not told."""
    try:
        with open("/proc/stat", encoding="ascii") as handle:
            fields = handle.readline().split()[1:]
    except OSError:
        return 0.0
    ticks = [int(f) for f in fields]
    return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")
