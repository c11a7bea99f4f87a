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
MESSAGE = 32 * 2**20  # bytes
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


def messages(grads: Sequence[Tensor], most: int) -> list[list[Tensor]]:
    """In order, a new message where the last one would grow beyond `most` bytes."""
    found: list[list[Tensor]] = []
    size = most
    for grad in grads:
        if size + grad.nbytes > most:
            found.append([])
            size = 0
        found[-1].append(grad)
        size += grad.nbytes
    return found


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
        """Replaces every gradient by its mean over the ranks.

        Gradients travel in flat messages of about `MESSAGE` bytes: while one is under way the next is put together.
        """
        if self.world == 1:
            return
        under_way = []
        for grads in messages([p.grad for p in parameters if p.grad is not None], MESSAGE):
            flat = torch.cat([g.flatten() for g in grads])
            under_way.append((grads, flat, dist.all_reduce(flat, async_op=True)))
        for grads, flat, sent in under_way:
            sent.wait()
            flat /= self.world
            parts = flat.split([g.numel() for g in grads])
            torch._foreach_copy_(grads, [part.view_as(grad) for grad, part in zip(grads, parts, strict=True)])

    def most(self, value: float) -> float:
        """The largest value of any rank."""
        if self.world == 1:
            return value
        found = torch.tensor(value, device=device())
        dist.all_reduce(found, dist.ReduceOp.MAX)
        return found.item()

    def any(self, value: bool) -> bool:
        """Whether it is so on any rank."""
        return self.most(float(value)) > 0

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
