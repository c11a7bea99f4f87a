"""One row of the bench: what both sides do, how it is seen that they do the same, and what it takes to run."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from capfilt.errors import CheckFailed, ConfigError
from capfilt.runtime import machine, wait

if TYPE_CHECKING:
    from capfilt.recipes.bench.peers import Shelf

CPU = torch.device("cpu")
RESULTS = Path("bench/results.json")
SIDE = {"cpu": 3072, "cuda": 8192}  # of the square product that stands for the limit
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "int8": torch.int8}
INSTRUCTIONS = {"bf16": ("avx512_bf16", "amx_bf16"), "int8": ("avx512_vnni", "amx_int8")}
T = TypeVar("T")


class CannotRun(ConfigError):
    """This machine lacks what a row needs: an instruction or a package."""


@dataclass(frozen=True)
class Work:
    """Both sides of a row, ready to be called.

    peers: name and version → what does the same; of several the fastest counts.
    check: (result of ours, of a peer) → what is worth noting of their difference; CheckFailed if it is not the same.
    notes: what else the row says.
    flop:  floating-point operations of one call, where the share of the limit of `device` at `precision` is told.
    """

    ours: Callable[[], Any]
    peers: Mapping[str, Callable[[], Any]]
    check: Callable[[Any, Any], dict[str, Any]]
    notes: dict[str, Any] = field(default_factory=dict)
    flop: float | None = None
    precision: str = "fp32"
    device: torch.device = CPU


@dataclass(frozen=True)
class Row:
    """goal: the least ratio, None for a row that only informs. share: the least share of the machine's limit."""

    goal: float | None
    build: Callable[["Shelf"], Work]
    share: float | None = None


def need(precision: str) -> None:
    """Raises CannotRun where the processor would only emulate that precision."""
    wanted = INSTRUCTIONS.get(precision)
    if wanted and not set(wanted) & set(machine()["isa"]):
        raise CannotRun(f"this CPU has no {precision} instructions ({' or '.join(wanted)})")


def late(make: Callable[[], Callable[[], T]]) -> Callable[[], T]:
    """A work that is made when it is first called: what only one side needs is made on that side."""
    made = functools.cache(make)
    return lambda: made()()


def waited(work: Callable[[], T], device: torch.device) -> Callable[[], T]:
    """The same work, not done before the device is."""

    def whole() -> T:
        found = work()
        wait(device)
        return found

    return whole


def same_numbers(most: float) -> Callable[[torch.Tensor, torch.Tensor], dict[str, Any]]:
    """A check: tensors differ by at most `most`, relative to the largest value of the peer's."""

    def check(ours: torch.Tensor, peer: torch.Tensor) -> dict[str, Any]:
        if ours.shape != peer.shape:
            raise CheckFailed(f"shapes {tuple(ours.shape)} and {tuple(peer.shape)}; it must be the same work")
        off = float((ours.float() - peer.float()).abs().max() / peer.float().abs().max())
        if not off <= most:
            raise CheckFailed(f"the two sides differ by {off:.2g} of the largest value, more than {most}")
        return {"difference": float(f"{off:.2g}")}

    return check
