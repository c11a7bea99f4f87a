"""Our numbers against those of the original: every reference case below a folder, one line each.

A case holds random weights under the original's names, inputs, and the outputs the original code computed from them.
Each difference is counted in units of the case's own tolerance: 1.0 is the limit, whole numbers and shapes are equal
or not.
"""

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from capfilt.errors import CapfiltError, DataError
from capfilt.objectives.language import SmoothingRule
from capfilt.weights.replay import forward, training
from capfilt.weights.replay.case import Case, Expected

Status = Literal["pass", "fail", "not built yet"]
Replay = Callable[[Case], dict[SmoothingRule, dict[str, Tensor]]]

GRAD_NORM = 2e-4  # times max(1, value)
MOMENTUM_NORM, MOMENTUM_SUM = 1e-5, 1e-3  # of the norm; 1e-3 + 1e-5 of the sum
GENERATED = ("out.gen.", "out.sample.")  # searched and sampled ids: decoding stands above this room
FEW = 3

# The outputs that a kind of case has and no other; the name is asked only where the outputs cannot be read.
MARKS = {
    "two_processes": r"out\.\w+\.rank\d+\.loss_\w+",
    "pretrain": r"out\.\w+\.loss_lm",
    "retrieval_train": r"out\.\w+\.loss_itm",
    "retrieval_itm": r"out\.itm_enc_matrix",
    "captioner": r"out\.lm_loss",
    "vit": r"out\.block0",
}


def _each_rule(replay: Callable[[Case, SmoothingRule], dict[str, Tensor]]) -> Replay:
    return lambda case: {rule: replay(case, rule) for rule in case.rules}


REPLAYS: dict[str, Replay] = {
    "two_processes": training.two_processes,
    "pretrain": _each_rule(training.pretrain),
    "retrieval_train": _each_rule(training.retrieval),
    "retrieval_itm": _each_rule(forward.retrieval_itm),
    "captioner": _each_rule(forward.captioner),
    "vit": _each_rule(forward.vit),
}


@dataclass(frozen=True)
class Line:
    """What became of one case.

    worst:  largest difference in units of its tolerance (1.0 is the limit); None where nothing was computed.
    detail: which number that was and under which loss rule, what is not covered, or why it failed.
    """

    name: str
    worst: float | None
    status: Status
    detail: str


@dataclass(frozen=True)
class Gap:
    """One difference, in units of its tolerance."""

    size: float
    what: str
    rule: str = ""


def check(folder: Path) -> Iterator[Line]:
    """Compares every case below `folder` (or `folder` itself), in the order of their names, a line as each is done.

    A broken case is a line with its reason; other cases go on. A folder that is not there is a DataError.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; give the one that holds the reference cases")
    marks = {"case.json", "io.safetensors", "layouts.json"}
    for found in sorted({path.parent for path in folder.rglob("*") if path.name in marks}):
        name = folder.name if found == folder else str(found.relative_to(folder))
        yield _line(name, Case(found))


def _line(name: str, case: Case) -> Line:
    try:
        kind = _kind(case)
        if kind is None:
            return Line(name, None, "not built yet", "")
        if kind == "layouts":
            return _layouts(name, case)
        return _verdict(name, case, REPLAYS[kind])
    except CapfiltError as error:
        return Line(name, None, "fail", str(error))
    except Exception as error:  # whatever is wrong with one case, the others must still be heard
        return Line(name, None, "fail", f"{type(error).__name__}: {error}".splitlines()[0])


def _kind(case: Case) -> str | None:
    """Which replay a case asks for, by what it holds; None where there is none yet."""
    about = case.about
    if (case.folder / "layouts.json").exists() or "layouts.json" in about.get("files", {}):
        return "layouts"
    if "tolerances_atol" not in about:  # the cases of other systems give their tolerances in another way
        return None
    names = set(about["tolerances_atol"])
    for kind, mark in MARKS.items():
        if any(re.fullmatch(mark, name) for name in names):
            return kind
    plain = re.sub(r"^[\d_]+|_[a-z]$", "", str(about.get("case", case.folder.name)))
    return plain if plain in REPLAYS else None


def _layouts(name: str, case: Case) -> Line:
    faults, count = [], 0
    for layout, fault in forward.layouts(case):
        count += 1
        faults += [f"{layout}: {fault}"] if fault else []
    if not count:
        raise DataError(f"{case.folder.name}: layouts.json describes no layout that is known here")
    detail = "; ".join(faults) or f"names, shapes and trained parameters of {count} layouts, read and written"
    return Line(name, math.inf if faults else 0.0, "fail" if faults else "pass", detail)


def _verdict(name: str, case: Case, replay: Replay) -> Line:
    gaps: list[Gap] = []
    covered, generated, missing = 0, False, set()
    for rule, found in replay(case).items():
        expected = case.expected(rule)
        compared = list(gaps_of(expected, found))
        covered += len(compared)
        gaps += [Gap(gap.size, gap.what, rule) for gap in compared]
        left = {n for n in {*expected.outputs, *expected.tolerances} if n not in found}
        generated |= any(n.startswith(GENERATED) for n in left)
        missing |= {n for n in left if not n.startswith(GENERATED)}
    if not gaps:
        raise DataError(f"{case.folder.name}: nothing to compare")
    worst = max(gaps, key=lambda gap: gap.size)
    bad = sorted({gap.what for gap in gaps if gap.size > 1})
    rules = " and ".join(case.rules)
    detail = [f"{worst.what} ({worst.rule})" if len(case.rules) > 1 else worst.what, f"{covered} numbers compared"]
    detail += [f"loss rules {rules}"] if len(case.rules) > 1 else []
    detail += ["generation: not built yet"] if generated else []
    detail += [f"beyond tolerance: {_few(bad)}"] if bad else []
    detail += [f"nothing computed for {_few(sorted(missing))}"] if missing else []
    return Line(name, worst.size, "fail" if bad or missing else "pass", "; ".join(detail))


def _few(names: list[str]) -> str:
    return ", ".join(names[:FEW]) + (f" and {len(names) - FEW} more" if len(names) > FEW else "")


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
