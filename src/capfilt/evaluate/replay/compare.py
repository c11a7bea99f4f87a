"""Differences between what must come out of a case and what was computed, each in units of its tolerance."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from capfilt.errors import DataError
from capfilt.evaluate.replay.case import Expected

GRAD_NORM = 2e-4  # times max(1, value)
MOMENTUM_NORM, MOMENTUM_SUM = 1e-5, 1e-3  # of the norm; 1e-3 + 1e-5 of the sum


@dataclass(frozen=True)
class Gap:
    """One difference, in units of its tolerance."""

    size: float
    what: str


class Compared(NamedTuple):
    """What a case came to: its differences, what there is to say about them, and outputs that nothing computes."""

    gaps: list[Gap]
    notes: list[str]
    missing: tuple[str, ...] = ()


def equal(what: str, want: object, got: object) -> Gap:
    """The gap of something that is the same or not."""
    return Gap(0.0 if want == got else math.inf, what)


def gaps_of(expected: Expected, found: dict[str, Tensor]) -> Iterator[Gap]:
    """Every difference between what must come out and what was computed, where both are there."""
    for name, want in expected.outputs.items():
        if name in found:
            if name not in expected.tolerances:
                raise DataError(f"{name} has no tolerance in case.json")
            yield Gap(difference(want, found[name], expected.tolerances[name]), name)
    for name in expected.tolerances:
        if name in found and name not in expected.outputs:
            raise DataError(f"{name} has a tolerance but is missing in io.safetensors")
    at = partial(_under_run, found)
    for run, norms in expected.grad_norms.items():
        for name, value in norms.items():
            grad = at(run, "grad", name)
            yield Gap(_norm_gap(grad, value), f"grad_norms {run} {name}".replace("  ", " "))
    for run, table in expected.momentum_after.items():
        for name, (total, norm) in table.items():
            twin = at(run, "after", name)
            if twin is None:
                yield Gap(math.inf, f"momentum_after {run} {name}")
                continue
            off_sum = abs(float(twin.double().sum()) - total) / (MOMENTUM_SUM + MOMENTUM_NORM * abs(total))
            off_norm = abs(_norm(twin) - norm) / (MOMENTUM_NORM * norm) if norm else _norm(twin) * math.inf
            yield Gap(max(_finite(off_sum), _finite(off_norm)), f"momentum_after {run} {name}")


def difference(want: Tensor, got: Tensor, atol: float) -> float:
    """Largest |want - got| in units of `atol`; infinite where shapes or exact values differ."""
    if want.shape == (1,) and got.ndim == 0:  # scalars are stored as one number in a row
        got = got[None]
    if want.shape != got.shape:
        return math.inf
    if atol == 0 or not want.is_floating_point():
        return 0.0 if torch.equal(want, got.to(want.dtype)) else math.inf
    off = (want.double() - got.double()).abs().max() if want.numel() else torch.zeros(())
    return _finite(float(off) / atol)


def _under_run(found: dict[str, Tensor], run: str, kind: str, name: str) -> Tensor | None:
    return found.get(".".join(filter(None, ("out", run, kind, name))))


def _norm_gap(grad: Tensor | None, value: float | None) -> float:
    """A gradient against its recorded norm; None was recorded for what the original does not train."""
    if grad is None:
        return math.inf
    norm = _norm(grad)
    if value is None:
        return math.inf if norm else 0.0
    return _finite(abs(norm - value) / (GRAD_NORM * max(1.0, value)))


def _norm(x: Tensor) -> float:
    return float(x.double().norm())


def _finite(x: float) -> float:
    return x if math.isfinite(x) else math.inf
