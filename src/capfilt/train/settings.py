"""The settings of one training run."""

from dataclasses import dataclass, field
from typing import Any, Literal

from capfilt.errors import ConfigError
from capfilt.train.schedule import Schedule

NEUTRAL = ("log_every", "checkpoint_s", "workers", "compile", "shard", "checkpoint_layers")  # no result depends on them
# Settings that came after the first runs, and what those did without them.
YOUNGER = {
    "prompt": "",
    "no_repeat": 0,
    "banned": [],
    "required": [],
    "groups": 1,
    "mix": None,
}


def outcome(settings: Any) -> Any:
    """Of settings as JSON, those that results depend on, at any depth: runs of equal ones are the same run.

    What is younger than the first runs counts only where it changes something, so that runs from before stay known.
    """
    if not isinstance(settings, dict):
        return settings
    idle = {*NEUTRAL, *(name for name, before in YOUNGER.items() if settings.get(name) == before)}
    if settings.get("accumulate") == 1 or not settings.get("accumulate_exact"):
        idle.add("accumulate_exact")
    if "groups" in idle:
        idle.add("diversity")
    return {name: outcome(value) for name, value in settings.items() if name not in idle}


@dataclass(frozen=True)
class TrainConfig:
    """One training run.

    accumulate:   batches that make one step.
    accumulate_exact: where a Blip contrasts or matches, these batches are one (`train.joint`), as if there were memory
                  for it; the towers run forward twice. Off, each is compared within itself, and the twins move at each.
    shard:        each rank holds its share of the weights and moments only (`train.sharded`); needs torchrun.
    alpha_epochs: epochs over which the twins' weight in the ITC targets ramps up (2 in pre-training, 1 in retrieval).
    decay:        weight decay; on every parameter as BLIP has it, or on matrices only with `decay_all` off.
    temperature_rate: the ITC temperature's learning rate as a multiple of the others'. At the high rates of short runs
                  it would wander off within a few steps and take contrast and hard negatives with it.
    precision:    `bf16` runs the towers under autocast, losses stay fp32; `auto` takes bf16 on a GPU, and for
                  wide models on a CPU that is measured to multiply it faster; else fp32.
    workers:      processes a rank that make batches ahead of the model, four each. None: on a GPU its share of the
                  machine's cores, at most 8; on a CPU 0, for the model needs the cores, and batches come between steps.
    log_every:    steps between lines of `metrics.jsonl`: losses, rate, `pairs_per_s` since the line before,
                  `pairs_per_s_overall` since the start, and `mfu` (`train.speed`).
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
    accumulate_exact: bool = True
    shard: bool = False
    alpha_epochs: float = 2.0
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    compile: bool = False
    workers: int | None = None
    log_every: int = 20
    checkpoint_s: float = 30.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("steps", 1), ("batch", 2), ("accumulate", 1), ("log_every", 1), ("workers", 0)):
            if (getattr(self, name) or 0) < least:
                raise ConfigError(f"{name}={getattr(self, name)}: must be at least {least}")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ConfigError(f"betas={self.betas}: two numbers in [0, 1)")
        if self.compile and (self.shard or (self.accumulate > 1 and self.accumulate_exact)):
            raise ConfigError(
                "compile=true compiles whole steps: leave shard off, and accumulate_exact if accumulate > 1"
            )
