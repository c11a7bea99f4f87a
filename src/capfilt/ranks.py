"""The other processes of a run, as an object that is handed over: objectives and models never look ranks up."""

import datetime
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from capfilt.runtime import device

T = TypeVar("T")
PATIENCE = datetime.timedelta(days=2)  # others wait while the first rank reads a collection or evaluates


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

    def any(self, value: bool) -> bool:
        """Whether it is so on any rank."""
        return bool(value if self.world == 1 else self.sum(torch.tensor(float(value), device=device())) > 0)

    def first(self, value: bool) -> bool:
        """Whether it is so on the first rank: what is asked of a disk that another rank may be writing to."""
        return self.any(value and self.rank == 0)

    def in_turn(self, work: Callable[[], T]) -> T:
        """The first rank works, then the others do the same and find it done."""
        if self.rank:
            self.barrier()
            return work()
        done = work()
        self.barrier()
        return done

    def barrier(self) -> None:
        """Waits for every rank."""
        if self.world > 1:
            dist.barrier()


ALONE = Ranks()


def from_environment() -> Ranks:
    """Joins the group that `torchrun` describes, each rank on its own GPU where there are any; alone without one."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return ALONE
    if not dist.is_initialized():
        on_gpus = device().type == "cuda"
        if on_gpus:
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        dist.init_process_group("nccl" if on_gpus else "gloo", timeout=PATIENCE)
    ranks = Ranks(dist.get_rank(), dist.get_world_size())
    if ranks.rank:
        os.environ["CAPFILT_PROGRESS"] = "none"  # one bar is enough
    return ranks
