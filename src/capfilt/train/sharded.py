"""Weights, gradients and moments shared out over the ranks, block by block (FSDP2), for models too large for a device.

A block's weights are gathered just before they are needed and let go again after; between steps a rank holds its share
as DTensors, twins included. What is written is whole, so a run may go on with or without shards.
"""

import copy
import warnings
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor

from capfilt.blocks.med import Med
from capfilt.blocks.vit import Vit
from capfilt.errors import ConfigError
from capfilt.models.blip import Blip
from capfilt.ranks import Ranks


def sharded(model: nn.Module, device: torch.device, ranks: Ranks) -> Blip:
    """A copy of `model` on `device` of which each rank holds its share; `model` itself stays as it is.

    The temperature is a scalar, which cannot be shared out: every rank holds it, and its gradient is to be averaged.
    Raises ConfigError for one process, and for a model that is no Blip.
    """
    if ranks.world == 1:
        raise ConfigError("shard=true shares a model out over processes, here is one: start with torchrun, or leave it")
    if not isinstance(model, Blip):
        raise ConfigError(f"shard=true: a {type(model).__name__} cannot be shared out, only a Blip; leave it")
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view")  # nothing is changed in place
    shared = copy.deepcopy(model).to(device)
    mesh = init_device_mesh(device.type, (ranks.world,))

    def unit(module: nn.Module, *entries: str) -> None:
        fully_shard(module, mesh=mesh, reshard_after_forward=True)
        for name in entries:  # the ways in besides `forward`
            register_fsdp_forward_method(module, name)

    heads = {name for name, module in shared.named_modules() if isinstance(module, nn.Linear)}
    for name, tower in [*shared.named_modules()]:
        if isinstance(tower, Vit):
            for block in tower.blocks:
                unit(block)
            unit(tower)
        elif isinstance(tower, Med):
            for layer in tower.layers:
                if layer.cross is not None:
                    unit(layer.cross, "project")  # of all layers, before the first text looks
                unit(layer, "whole")
            unit(tower, "read", "look", "speak", "project", "word_logits")
        else:
            continue
        heads = {head for head in heads if not head.startswith(f"{name}.")}
    for name in heads:
        unit(shared.get_submodule(name))
    return shared


def whole(x: Tensor) -> Tensor:
    """A tensor that every rank sees all of. Every rank must ask."""
    return x.full_tensor() if isinstance(x, DTensor) else x


def as_held(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Whole tensors, laid out as `own` holds those of the same name."""
    return {name: _like(x, own[name]) if name in own else x for name, x in tensors.items()}


def _like(x: Tensor, own: Tensor) -> Tensor:
    if not isinstance(own, DTensor) or x.shape != own.shape:
        return x
    return distribute_tensor(x.to(own.device), own.device_mesh, own.placements, src_data_rank=None)


def local(x: Tensor) -> Tensor:
    """This rank's part."""
    return x.to_local() if isinstance(x, DTensor) else x


@torch.no_grad()
def clip_gradients(parameters: Sequence[Tensor], most: float, ranks: Ranks) -> None:
    """`torch.nn.utils.clip_grad_norm_` where some parameters are shared out and others whole."""
    grads = [p.grad for p in parameters if p.grad is not None]
    shares = [g.to_local() for g in grads if isinstance(g, DTensor)]
    rest = [g for g in grads if not isinstance(g, DTensor)]
    square = ranks.sum(_square(shares)) + _square(rest)
    torch._foreach_mul_([*shares, *rest], (most / (square.sqrt() + 1e-6)).clamp(max=1.0))


def _square(parts: list[Tensor]) -> Tensor:
    return torch.stack(torch._foreach_norm(parts)).square().sum()
