"""Learning rates as functions of the step (BLIP's code and paper, `pretrain` and fine-tuning)."""

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Schedule:
    """How the learning rate moves.

    kind: `cosine` falls to `floor` over all steps;
          `epoch_decay` multiplies by `decay` each epoch (BLIP's pre-training);
          `epoch_cosine` is a cosine in whole epochs (BLIP's fine-tuning); `constant` stays.
    warmup: steps of linear rise from `warmup_start`; under `epoch_decay` only inside the first epoch, as BLIP has it.
    """

    kind: Literal["cosine", "epoch_decay", "epoch_cosine", "constant"] = "cosine"
    rate: float = 3e-4
    floor: float = 0.0
    warmup: int = 0
    warmup_start: float = 1e-6
    decay: float = 0.9

    def at(self, step: int, steps: int, steps_per_epoch: float) -> float:
        """The rate of step `step` (from 0) of `steps`."""
        epoch = int(step / steps_per_epoch)
        if step < self.warmup and (epoch == 0 or self.kind != "epoch_decay"):
            return self.warmup_start + (self.rate - self.warmup_start) * step / self.warmup
        if self.kind == "constant":
            return self.rate
        if self.kind == "epoch_decay":
            return max(self.floor, self.rate * self.decay**epoch)
        if self.kind == "epoch_cosine":
            done = epoch / max(1, math.ceil(steps / steps_per_epoch))
        else:
            done = (step - self.warmup) / max(1, steps - self.warmup)
        return self.floor + (self.rate - self.floor) * (1 + math.cos(math.pi * min(1.0, done))) / 2
