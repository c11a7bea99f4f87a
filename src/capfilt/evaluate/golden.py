"""Our numbers against those of the original: every reference case below a folder, one line each.

A case holds random weights under the original's names, inputs, and the outputs the original code computed from them.
Each difference is counted in units of the case's own tolerance: 1.0 is the limit, whole numbers and shapes are equal
or not.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from capfilt.errors import CapfiltError, DataError
from capfilt.evaluate.replay import forward, huggingface, tasks, training
from capfilt.evaluate.replay.case import Case, Outputs
from capfilt.evaluate.replay.compare import Compared, Gap, gaps_of
from capfilt.evaluate.replay.layouts import layouts
from capfilt.evaluate.replay.preprocess import preprocess
from capfilt.objectives.language import SmoothingRule

Status = Literal["pass", "fail", "not built yet"]
Replay = Callable[[Case], dict[SmoothingRule, Outputs]]

FEW = 3

# The outputs that a kind of case has and no other; the name is asked only where the outputs cannot be read.
MARKS = {
    "two_processes": r"out\.\w+\.rank\d+\.loss_\w+",
    "pretrain": r"out\.\w+\.loss_lm",
    "retrieval_train": r"out\.\w+\.loss_itm",
    "retrieval_itm": r"out\.itm_enc_matrix",
    "captioner": r"out\.lm_loss",
    "vqa": r"out\.question_states",
    "nlvr2": r"out\.logits_swapped",
    "hf_caption": r"out\.hf\.\w+\.prompt_logits_cols",
    "hf_itm": r"out\.hf\.\w+\.itm_\w+",
    "hf_vqa": r"out\.hf\.\w+\.question_states_\w+",
    "preprocess": r"uint8 tensors",
    "vit": r"out\.block0",
}


def _each_rule(replay: Callable[[Case, SmoothingRule], Outputs]) -> Replay:
    return lambda case: {rule: replay(case, rule) for rule in case.rules}


REPLAYS: dict[str, Replay] = {
    "two_processes": training.two_processes,
    "pretrain": _each_rule(training.pretrain),
    "retrieval_train": _each_rule(training.retrieval),
    "retrieval_itm": _each_rule(forward.retrieval_itm),
    "captioner": _each_rule(forward.captioner),
    "vqa": _each_rule(tasks.vqa),
    "nlvr2": _each_rule(tasks.nlvr2),
    "hf_caption": _each_rule(huggingface.caption),
    "hf_itm": _each_rule(huggingface.itm),
    "hf_vqa": _each_rule(huggingface.vqa),
    "vit": _each_rule(forward.vit),
}
TABLES: dict[str, Callable[[Case], Compared]] = {"layouts": layouts, "preprocess": preprocess}  # of more than tensors


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


def check(folder: Path, vocab: Path | None = None) -> Iterator[Line]:
    """Compares every case below `folder` (or `folder` itself), in the order of their names, a line as each is done.

    vocab: the BERT vocabulary (a file or folder) that texts are tokenised with; see `Case`.

    A broken case is a line with its reason; other cases go on. A folder that is not there is a DataError.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; give the one that holds the reference cases")
    marks = {"case.json", "io.safetensors", "layouts.json"}
    for found in sorted({path.parent for path in folder.rglob("*") if path.name in marks}):
        name = folder.name if found == folder else str(found.relative_to(folder))
        yield _line(name, Case(found, vocab))


def _line(name: str, case: Case) -> Line:
    try:
        kind = _kind(case)
        if kind is None:
            return Line(name, None, "not built yet", "")
        return _verdict(name, TABLES[kind](case) if kind in TABLES else _replayed(case, REPLAYS[kind]))
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


def _replayed(case: Case, replay: Replay) -> Compared:
    """The tensors of a case, compared under each of its loss rules."""
    gaps: list[Gap] = []
    missing: set[str] = set()
    several = len(case.rules) > 1
    for rule, found in replay(case).items():
        expected = case.expected(rule)
        gaps += [replace(gap, what=f"{gap.what} ({rule})") if several else gap for gap in gaps_of(expected, found)]
        missing |= {name for name in {*expected.outputs, *expected.tolerances} if name not in found}
    return Compared(gaps, [f"loss rules {' and '.join(case.rules)}"] if several else [], tuple(sorted(missing)))


def _verdict(name: str, compared: Compared) -> Line:
    gaps, notes, missing = compared
    if not gaps:
        raise DataError(f"{name}: nothing to compare")
    worst = max(gaps, key=lambda gap: gap.size)
    bad = [gap.what for gap in sorted(gaps, key=lambda gap: -gap.size) if not gap.size <= 1]
    detail = [worst.what] if worst.size else []
    detail += [f"{len(gaps)} numbers compared", *notes]
    detail += [f"beyond tolerance: {_few(bad)}"] if bad else []
    detail += [f"nothing computed for {_few(missing)}"] if missing else []
    return Line(name, worst.size, "fail" if bad or missing else "pass", "; ".join(detail))


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:FEW]) + (f" and {len(names) - FEW} more" if len(names) > FEW else "")
