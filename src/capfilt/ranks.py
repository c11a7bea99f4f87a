"""The other processes of a run, as an object that is handed over: objectives and models never look ranks up."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor


class _GatherWithGrad(torch.autograd.Function):
    """All ranks' rows; the backward pass returns to each rank the sum of what all ranks ask of its rows."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        parts = [torch.empty_like(x) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        grad = grad.contiguous()
        dist.all_reduce(grad)
        return grad.chunk(dist.get_world_size())[dist.get_rank()]


@dataclass(frozen=True)
class Ranks:
    """This process's place among `world` equal ones. With one, everything here is the identity."""

    rank: int = 0
    world: int = 1

    def gather(self, x: Tensor, grad: bool = False) -> Tensor:
        """(B, ...) on each rank → (world · B, ...) in rank order; `grad` lets gradients flow back to their owners."""
        if self.world == 1:
            return x
        if grad:
            return _GatherWithGrad.apply(x)
        parts = [torch.empty_like(x) for _ in range(self.world)]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    def sum(self, x: Tensor) -> Tensor:
        """The sum over ranks of a tensor without gradient."""
        if self.world > 1:
            x = x.clone()
            dist.all_reduce(x)
        return x

    def average_gradients(self, parameters: Sequence[Tensor]) -> None:
        """Replaces every gradient by its mean over the ranks, in one flat message."""
        if self.world == 1:
            return
        grads = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([g.flatten() for g in grads])
        dist.all_reduce(flat)
        flat /= self.world
        for grad, part in zip(grads, flat.split([g.numel() for g in grads]), strict=True):
            grad.copy_(part.view_as(grad))

    def barrier(self) -> None:
        """Waits for every rank."""
        if self.world > 1:
            dist.barrier()


def from_environment() -> Ranks:
    """Joins the group that `torchrun` describes; alone where there is none."""
    import os

    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Ranks()
    if not dist.is_initialized():
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    return Ranks(dist.get_rank(), dist.get_world_size())
