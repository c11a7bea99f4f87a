"""The one training loop. What it trains, on what and for which losses is handed to it."""

import json
import math
import os
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.utils.data import DataLoader, Dataset

from capfilt.config import fingerprint, to_dict
from capfilt.errors import CheckFailed, ConfigError
from capfilt.files import read_json, read_jsonl, storage_errors, write_json, write_text
from capfilt.inputs.tokenizer import TextTokenizer
from capfilt.models.blip import Blip, Objective
from capfilt.objectives.contrastive import alpha_at
from capfilt.progress import Progress
from capfilt.ranks import ALONE, Ranks
from capfilt.runtime import WORTH, Terminated, derive, device, generator, matmul_gain, usable_cores
from capfilt.train.checkpoint import load_checkpoint, save_checkpoint
from capfilt.train.joint import JointStep
from capfilt.train.settings import TrainConfig, outcome
from capfilt.train.sharded import clip_gradients, local, sharded, whole
from capfilt.train.speed import Speedometer
from capfilt.weights import store
from capfilt.weights.store import Model


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
        store.load_strictly(model.to(run.device), store.load_tensors(out / "model.safetensors"), out)
        (out / "checkpoint.safetensors").unlink(missing_ok=True)  # there if the run was killed after its closing note
        return done
    run.start()
    with Progress(stage, config.steps, start=run.step) as bar, _signals() as stop:
        for batch in run.loader():
            values = run.train_step(batch)
            if values is not None:
                run.log(values)
                bar.update(run.step, **values)
            if run.micro:  # between two steps only
                continue
            due = time.monotonic() - run.saved > config.checkpoint_s
            asked = ranks.most(2.0 if stop else float(due))
            if asked:
                run.save()
            if asked == 2:
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
        self.given, self.batches, self.objective, self.config = model, batches, objective, config
        self.out, self.ranks, self.step, self.micro, self.seconds = out, ranks, 0, 0, 0.0
        batches.rank, batches.world = ranks.rank, ranks.world
        self.device = device()
        self.fingerprint = _fingerprint(model, objective, config, batches)

    def start(self) -> None:
        """Sets up what moves, and takes up the last checkpoint."""
        config, given, objective = self.config, self.given, self.objective
        self.model = sharded(given, self.device, self.ranks) if config.shard else given.to(self.device)
        self.model.train()
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.whole = [p for p in self.parameters if not isinstance(p, DTensor)]
        self.optimiser = _optimiser(self.model, config)
        self.losses = torch.compile(self.model.losses) if config.compile else self.model.losses
        compares = isinstance(objective, Objective) and bool({"itc", "itm"} & {*objective.losses})
        self.joint = config.accumulate > 1 and config.accumulate_exact and compares
        self.parts: list[Any] = []  # of a joint step
        dtype = self._precision(wide=self.model.config.vit.width >= 512)
        self.autocast = torch.autocast(self.device.type, dtype) if dtype is torch.bfloat16 else nullcontext()
        self.saved = self.begun = time.monotonic()
        self.resume()
        self.speed = Speedometer(self.model, objective, self.device, dtype)

    def loader(self) -> Iterator:
        """Micro-batches from where the run stands."""
        start, end = self.step * self.config.accumulate, self.config.steps * self.config.accumulate
        workers = _workers(self.device) if self.config.workers is None else self.config.workers
        ahead = DataLoader(
            cast("Dataset[Any]", self.batches),
            batch_size=None,
            sampler=range(start, end),
            num_workers=workers,
            prefetch_factor=4 if workers else None,
            persistent_workers=workers > 0,
            collate_fn=_apart,
            pin_memory=self.device.type == "cuda",
        )
        for kind, fields in ahead:
            yield kind(**fields)

    def train_step(self, batch) -> dict[str, float] | None:
        """One micro-batch, and the update when enough have come. Returns metrics when they are due."""
        self.speed.saw(len(batch), batch.ids.shape[1])
        found = self.backward(batch.to(self.device))
        self.micro = (self.micro + 1) % self.config.accumulate
        return None if self.micro else self.update(found)

    def backward(self, batch) -> dict[str, Tensor]:
        """Adds a micro-batch's gradients and returns its losses; in a joint step the last one does so for all."""
        config, objective, rank = self.config, self.objective, self.ranks.rank
        ramp = round(config.alpha_epochs * self.batches.steps_per_epoch / config.accumulate)
        alpha = alpha_at(self.step, ramp, getattr(objective, "alpha", 0.0))
        seeds = [derive(config.seed, "dropout", self.step, micro, rank) for micro in range(config.accumulate)]
        if self.joint:
            self.parts.append(batch)
            if len(self.parts) < config.accumulate:
                return {}
            parts, self.parts = self.parts, []
            joint = JointStep(cast("Blip", self.model), parts, objective, self.ranks, self.autocast, seeds)
            return joint.backward(alpha, self.uniform(0, config.accumulate))
        torch.manual_seed(seeds[self.micro])
        with self.autocast:
            found = self.losses(batch, objective, alpha, self.uniform(self.micro, 1), self.ranks)
        (torch.stack(list(found.values())).sum() / config.accumulate).backward()
        return found

    def uniform(self, micro: int, times: int) -> Tensor:
        """The numbers that decide hard negatives, for this rank's rows of `times` micro-batches."""
        config, ranks = self.config, self.ranks
        numbers = torch.rand(2, times * config.batch, generator=generator(config.seed, "negatives", self.step, micro))
        return numbers.view(2, times, ranks.world, -1)[:, :, ranks.rank].flatten(1).to(self.device)

    def update(self, found: Mapping[str, Tensor]) -> dict[str, float] | None:
        """Moves the weights by the gradients that have gathered. Returns metrics when they are due."""
        config = self.config
        self.ranks.average_gradients(self.whole)
        if config.clip is not None and config.shard:
            clip_gradients(self.parameters, config.clip, self.ranks)
        elif config.clip is not None:
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
        overall = self.step * self.config.batch * self.config.accumulate / max(seconds, 1e-9)
        speed = {**self.speed.read(self.ranks.world), "pairs_per_s_overall": round(overall, 1)}
        row = {"step": self.step, "seconds": round(seconds, 2), **speed, **values}
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
        """A checkpoint of this very step. Every rank calls it."""
        self.saved = time.monotonic()
        if self.ranks.rank and not self.config.shard:
            return
        broken = not torch.stack(torch._foreach_norm([local(p) for p in self.parameters])).isfinite().all()
        if self.ranks.any(broken) if self.config.shard else broken:
            raise self.not_finite("a weight is not finite")
        about = {
            "step": self.step,
            "seconds": self.seconds + self.saved - self.begun,
            "fingerprint": self.fingerprint,
        }
        save_checkpoint(self.out / "checkpoint.safetensors", self.model, self.optimiser, about, self.ranks)

    def finish(self, tokenizer) -> dict[str, Any]:
        """Writes the model and the closing note, and removes the checkpoint."""
        self.seconds += time.monotonic() - self.begun
        if self.config.shard:
            self.given.load_state_dict({name: whole(x) for name, x in self.model.state_dict().items()})
        model = self.given.to(self.device).eval()
        done = {"fingerprint": self.fingerprint, "steps": self.step, "seconds": round(self.seconds, 1)}
        if not self.ranks.rank:
            store.save(model, tokenizer, self.out)
            write_json(self.out / "done.json", done)
            (self.out / "checkpoint.safetensors").unlink(missing_ok=True)
        self.ranks.barrier()
        return done

    def _precision(self, wide: bool) -> torch.dtype:
        precision = self.config.precision
        if precision == "auto":
            fast = self.device.type == "cuda" or (wide and matmul_gain(self.device, torch.bfloat16) > WORTH)
            precision = "bf16" if fast else "fp32"
        return torch.bfloat16 if precision == "bf16" else torch.float32


def _fingerprint(model: Model, objective: Any, config: TrainConfig, batches: StepBatches) -> str:
    about = {"model": to_dict(model.config), "objective": to_dict(objective), "train": to_dict(config)}
    return fingerprint({**outcome(about), "data": batches.describe()})


def _optimiser(model: Model, config: TrainConfig) -> torch.optim.AdamW:
    parameters = [p for p in model.parameters() if p.requires_grad]
    temperature = getattr(model, "temperature", None)
    rest = [p for p in parameters if p is not temperature]
    groups = [
        {"params": [p for p in rest if p.ndim >= 2 or config.decay_all], "weight_decay": config.decay},
        {"params": [p for p in rest if p.ndim < 2 and not config.decay_all], "weight_decay": 0.0},
        {
            "params": [temperature] if temperature is not None else [],
            "weight_decay": config.decay if config.decay_all else 0.0,
            "times": config.temperature_rate,
        },
    ]
    return torch.optim.AdamW(
        [g for g in groups if g["params"]],
        lr=config.schedule.rate,
        betas=(config.betas[0], config.betas[1]),
        eps=config.eps,
        fused=True,
    )


def _apart(batch: Any) -> tuple[type, dict[str, Any]]:
    """A batch as what the loader's pinning thread can walk."""
    return type(batch), vars(batch)


def _workers(on: torch.device) -> int:
    if on.type != "cuda":
        return 0
    return max(1, min(8, usable_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")) - 1))


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
