"""The one training loop. What it trains, on what and for which losses is handed to it."""

import json
import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, cast, runtime_checkable

import torch
from torch.utils.data import DataLoader, Dataset

from capfilt.config import fingerprint, to_dict
from capfilt.errors import CheckFailed, ConfigError
from capfilt.files import read_json, read_jsonl, storage_errors, write_json, write_text
from capfilt.inputs.tokenizer import TextTokenizer
from capfilt.objectives.contrastive import alpha_at
from capfilt.progress import Progress
from capfilt.ranks import ALONE, Ranks
from capfilt.runtime import Terminated, derive, device, generator
from capfilt.train.checkpoint import load_checkpoint, save_checkpoint
from capfilt.train.schedule import Schedule
from capfilt.weights import store
from capfilt.weights.store import Model

NEUTRAL = ("log_every", "checkpoint_s", "workers", "compile")  # settings that no result depends on


@dataclass(frozen=True)
class TrainConfig:
    """One training run.

    alpha_epochs: epochs over which the twins' weight in the ITC targets ramps up (2 in pre-training, 1 in retrieval).
    decay:        weight decay; on every parameter as BLIP has it, or on matrices only with `decay_all` off.
    temperature_rate: the ITC temperature's learning rate as a multiple of the others'. At the high rates of short runs
                  it would wander off within a few steps and take contrast and hard negatives with it.
    precision:    `bf16` runs the towers under autocast, losses stay fp32; `auto` measures nothing and takes bf16 on a
                  GPU and on wide models where the CPU has it, fp32 elsewhere.
    checkpoint_s: seconds between checkpoints; results do not depend on it.
    """

    steps: int
    batch: int = 64
    schedule: Schedule = field(default_factory=Schedule)
    decay: float = 0.05
    decay_all: bool = True
    betas: tuple[float, ...] = (0.9, 0.999)
    eps: float = 1e-8
    clip: float | None = None
    temperature_rate: float = 1.0
    accumulate: int = 1
    alpha_epochs: float = 2.0
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    compile: bool = False
    workers: int = 0
    log_every: int = 20
    checkpoint_s: float = 30.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("steps", 1), ("batch", 2), ("accumulate", 1), ("log_every", 1), ("workers", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name}={getattr(self, name)}: must be at least {least}")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ConfigError(f"betas={self.betas}: two numbers in [0, 1)")


@runtime_checkable
class StepBatches(Protocol):
    """The batch of every step as a function of the step alone.

    size:        rows of the joint batch of all ranks.
    rank, world: which share of it this process gets; `fit` sets them.
    """

    size: int
    rank: int
    world: int
    tokenizer: TextTokenizer

    @property
    def steps_per_epoch(self) -> float:
        """Steps in which every row is seen once."""
        ...

    def describe(self) -> dict[str, int]:
        """What tells this data from other data: a checkpoint belongs to it."""
        ...

    def __getitem__(self, step: int, /) -> Any:
        """This rank's part of the step's batch; it has `to(device)`."""
        ...


class NotFinite(CheckFailed):
    """A loss became NaN or infinite."""


def fit(
    model: Model,
    batches: StepBatches,
    objective: Any,
    config: TrainConfig,
    out: Path,
    stage: str,
    ranks: Ranks = ALONE,
) -> dict[str, Any]:
    """Trains `model` in place to `config.steps`, resuming from `out` where it stopped; a finished run is only loaded.

    objective: what the model's `losses` takes; `alpha_epochs` counts only where it has an `alpha`.

    Writes `metrics.jsonl` as it goes, `checkpoint.safetensors` while it runs, and at the end the model and `done.json`,
    which is returned. SIGTERM and Ctrl-C save a checkpoint before they end the process.
    """
    run = _Run(model, batches, objective, config, out, ranks)
    if ranks.first((out / "done.json").is_file()):
        done = read_json(out / "done.json")
        if done["fingerprint"] != run.fingerprint:
            raise ConfigError(
                f"{out}: holds a finished run of other settings or data. Use another --out, or delete the folder."
            )
        store.load_strictly(model, store.load_tensors(out / "model.safetensors"), out)
        (out / "checkpoint.safetensors").unlink(missing_ok=True)  # there if the run was killed after its closing note
        return done
    run.resume()
    with Progress(stage, config.steps, start=run.step) as bar, _signals() as stop:
        for batch in run.loader():
            values = run.train_step(batch)
            if values is not None:
                run.log(values)
                bar.update(run.step, **values)
            if run.micro:  # between two steps only
                continue
            stopping = ranks.any(bool(stop))
            if stopping or time.monotonic() - run.saved > config.checkpoint_s:
                run.save()
            if stopping:
                raise stop[0] if stop else Terminated()
    return run.finish(batches.tokenizer)


class _Run:
    """The state of one run and what moves it on."""

    def __init__(
        self, model: Model, batches: StepBatches, objective: Any, config: TrainConfig, out: Path, ranks: Ranks
    ):
        if config.batch != batches.size or config.batch % ranks.world:
            raise ConfigError(
                f"batch={config.batch} must be the loader's ({batches.size}) and divide by {ranks.world} ranks"
            )
        self.model, self.batches, self.objective, self.config = model, batches, objective, config
        self.out, self.ranks, self.step, self.micro, self.seconds = out, ranks, 0, 0, 0.0
        batches.rank, batches.world = ranks.rank, ranks.world
        self.device = device()
        model.to(self.device).train()
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        temperature = getattr(model, "temperature", None)
        rest = [p for p in self.parameters if p is not temperature]
        groups = [
            {"params": [p for p in rest if p.ndim >= 2 or config.decay_all], "weight_decay": config.decay},
            {"params": [p for p in rest if p.ndim < 2 and not config.decay_all], "weight_decay": 0.0},
            {
                "params": [temperature] if temperature is not None else [],
                "weight_decay": config.decay if config.decay_all else 0.0,
                "times": config.temperature_rate,
            },
        ]
        self.optimiser = torch.optim.AdamW(
            [g for g in groups if g["params"]],
            lr=config.schedule.rate,
            betas=(config.betas[0], config.betas[1]),
            eps=config.eps,
            fused=True,
        )
        run = {k: v for k, v in to_dict(config).items() if k not in NEUTRAL}
        built = {k: v for k, v in to_dict(model.config).items() if (k, v) != ("prompt", "")}  # as before it came
        self.fingerprint = fingerprint(
            {"model": built, "objective": to_dict(objective), "train": run, "data": batches.describe()}
        )
        self.losses = torch.compile(model.losses) if config.compile else model.losses
        self.autocast = self._autocast(wide=model.config.vit.width >= 512)
        self.saved = self.begun = time.monotonic()

    def loader(self) -> Iterator:
        """Micro-batches from where the run stands."""
        start, end = self.step * self.config.accumulate, self.config.steps * self.config.accumulate
        workers = self.config.workers
        yield from DataLoader(
            cast("Dataset[Any]", self.batches),
            batch_size=None,
            sampler=range(start, end),
            num_workers=workers,
            prefetch_factor=4 if workers else None,
            persistent_workers=workers > 0,
            pin_memory=False,
        )

    def train_step(self, batch) -> dict[str, float] | None:
        """One micro-batch, and the update when enough have come. Returns metrics when they are due."""
        config, micro = self.config, self.micro
        torch.manual_seed(derive(config.seed, "dropout", self.step, micro, self.ranks.rank))
        uniform = torch.rand(2, config.batch, generator=generator(config.seed, "negatives", self.step, micro))
        uniform = uniform.chunk(self.ranks.world, dim=1)[self.ranks.rank]
        ramp = round(config.alpha_epochs * self.batches.steps_per_epoch / config.accumulate)
        alpha = alpha_at(self.step, ramp, getattr(self.objective, "alpha", 0.0))
        with self.autocast:
            found = self.losses(batch.to(self.device), self.objective, alpha, uniform.to(self.device), self.ranks)
        (torch.stack(list(found.values())).sum() / config.accumulate).backward()
        self.micro = micro + 1
        if self.micro < config.accumulate:
            return None
        self.micro = 0
        self.ranks.average_gradients(self.parameters)
        if config.clip is not None:
            torch.nn.utils.clip_grad_norm_(self.parameters, config.clip)
        epoch = self.batches.steps_per_epoch / config.accumulate
        rate = config.schedule.at(self.step, config.steps, epoch)
        for group in self.optimiser.param_groups:
            group["lr"] = rate * group.get("times", 1.0)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.step += 1
        if self.step % config.log_every and self.step != config.steps:
            return None
        values = {k: self.ranks.sum(v.detach()).item() / self.ranks.world for k, v in found.items()}
        if not all(map(math.isfinite, values.values())):
            raise self.not_finite(f"a loss is not finite ({values})")
        return {**values, "loss": sum(values.values()), "rate": rate}

    def not_finite(self, what: str) -> NotFinite:
        """What to raise when a number has run away."""
        return NotFinite(
            f"step {self.step}: {what}. Lower the learning rate, or set clip; the last good state is in {self.out}."
        )

    def log(self, values: dict[str, float]) -> None:
        """One line of `metrics.jsonl`."""
        if self.ranks.rank:
            return
        seconds = self.seconds + time.monotonic() - self.begun
        speed = self.step * self.config.batch * self.config.accumulate / max(seconds, 1e-9)
        row = {"step": self.step, "seconds": round(seconds, 2), "pairs_per_s": round(speed, 1), **values}
        with storage_errors(self.out), open(self.out / "metrics.jsonl", "a", encoding="utf-8") as handle:
            handle.write(json.dumps(row) + "\n")

    def resume(self) -> None:
        """Takes up the last checkpoint, and forgets what was logged after it."""
        with storage_errors(self.out):
            self.out.mkdir(parents=True, exist_ok=True)
        path, log = self.out / "checkpoint.safetensors", self.out / "metrics.jsonl"
        if path.is_file():
            about = load_checkpoint(path, self.model, self.optimiser, self.fingerprint)
            self.step, self.seconds = about["step"], about["seconds"]
        if not self.ranks.rank:
            rows = [row for row in read_jsonl(log) if row["step"] <= self.step] if log.is_file() else []
            write_text(log, "".join(json.dumps(row) + "\n" for row in rows))
        self.ranks.barrier()

    def save(self) -> None:
        """A checkpoint of this very step."""
        self.saved = time.monotonic()
        if self.ranks.rank == 0:
            if not torch.stack(torch._foreach_norm([*self.parameters])).isfinite().all():
                raise self.not_finite("a weight is not finite")
            about = {
                "step": self.step,
                "seconds": self.seconds + self.saved - self.begun,
                "fingerprint": self.fingerprint,
            }
            save_checkpoint(self.out / "checkpoint.safetensors", self.model, self.optimiser, about)

    def finish(self, tokenizer) -> dict[str, Any]:
        """Writes the model and the closing note, and removes the checkpoint."""
        self.model.eval()
        self.seconds += time.monotonic() - self.begun
        done = {"fingerprint": self.fingerprint, "steps": self.step, "seconds": round(self.seconds, 1)}
        if not self.ranks.rank:
            store.save(self.model, tokenizer, self.out)
            write_json(self.out / "done.json", done)
            (self.out / "checkpoint.safetensors").unlink(missing_ok=True)
        self.ranks.barrier()
        return done

    def _autocast(self, wide: bool):
        precision = self.config.precision
        if precision == "auto":
            fast = self.device.type == "cuda" or (wide and torch.backends.mkldnn.is_available() and _cpu_has_bf16())
            precision = "bf16" if fast else "fp32"
        if precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)


def _cpu_has_bf16() -> bool:
    return torch.ops.mkldnn._is_mkldnn_bf16_supported()


@contextmanager
def _signals() -> Iterator[list[BaseException]]:
    """A list that is empty until SIGTERM or Ctrl-C ask to stop; a second Ctrl-C does not wait for the step to end."""
    stop: list[BaseException] = []

    def handler(number: int, _frame: object) -> None:
        if stop and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.append(KeyboardInterrupt() if number == signal.SIGINT else Terminated())

    before = {s: signal.signal(s, handler) for s in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, old in before.items():
            signal.signal(number, old)
