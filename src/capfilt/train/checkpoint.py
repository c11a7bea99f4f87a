"""One file that holds a run's whole state: model, twins, queues, optimiser, and where the data stood."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from capfilt.errors import WeightsError
from capfilt.ranks import ALONE, Ranks
from capfilt.train.sharded import as_held, whole
from capfilt.weights.store import load_about, load_strictly, load_tensors, save_tensors

MOMENTS = ("exp_avg", "exp_avg_sq", "step")


def save_checkpoint(
    path: Path, model: nn.Module, optimiser: torch.optim.Optimizer, about: dict[str, Any], ranks: Ranks = ALONE
) -> None:
    """Atomically writes the state after `about["step"]` steps. Every rank calls it where the model is sharded."""
    tensors = {f"model.{k}": v for k, v in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        for moment in MOMENTS:
            if moment in optimiser.state.get(parameter, {}):
                tensors[f"{moment}.{name}"] = optimiser.state[parameter][moment]
    gathered = gather_to_first(tensors, ranks)
    if not ranks.rank:
        save_tensors(path, gathered, {"about": json.dumps(about)})


def gather_to_first(tensors: dict[str, torch.Tensor], ranks: Ranks) -> dict[str, torch.Tensor]:
    """Whole tensors in the first rank's memory, one gathered after the other; nothing elsewhere."""
    found = {}
    for name, x in tensors.items():
        full = whole(x.detach())
        if not ranks.rank:
            found[name] = full.cpu()
    return found


def load_checkpoint(path: Path, model: nn.Module, optimiser: torch.optim.Optimizer, fingerprint: str) -> dict[str, Any]:
    """Puts the state back and returns `about`. A checkpoint of another config is a WeightsError."""
    about = json.loads(load_about(path)["about"])
    if about["fingerprint"] != fingerprint:
        raise WeightsError(
            f"{path}: this checkpoint was made with other settings or data "
            f"({about['fingerprint']}, now {fingerprint}). Use another --out, or delete the folder to start anew."
        )
    tensors = load_tensors(path)
    held = {k[6:]: v for k, v in tensors.items() if k.startswith("model.")}
    load_strictly(model, as_held(held, model.state_dict()), path)
    for name, parameter in model.named_parameters():
        state = {m: tensors[f"{m}.{name}"] for m in MOMENTS if f"{m}.{name}" in tensors}
        if state:
            held = as_held(state, dict.fromkeys(("exp_avg", "exp_avg_sq"), parameter))
            optimiser.state[parameter] = {k: v.to(parameter.device) for k, v in held.items()}  # fused: `step` too
    return about
