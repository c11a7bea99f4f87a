"""From scores to decisions (BLIP §4.2). Scores are stored and decisions made anew: moving a bar needs no model."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from capfilt.errors import CheckFailed, ConfigError
from capfilt.pair import Decision, Row


@dataclass(frozen=True)
class Rule:
    """What the filter's two heads say together, and where the bar lies on it.

    kind:  `fixed`: at `threshold` (the paper's 0.5);
           `top`: so that the best `share` of the web texts pass (DataComp's way);
           `human`: so that `share` of held-back human pairs would pass, which suits a young, unsure filter.
    itc:   how much the cosine of image and text counts beside the matching head (`joint_score`); 0 as in the paper.
    margin: a synthetic text must beat the bar of the web texts by this much.
    best:  when both texts pass, keep only the better one.
    """

    kind: Literal["fixed", "top", "human"] = "fixed"
    threshold: float = 0.5
    share: float = 0.8
    itc: float = 0.0
    margin: float = 0.0
    best: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ConfigError(f"rule.share={self.share}: a share lies above 0 and at most at 1")


def joint_score(itm: float, itc: float, weight: float) -> float:
    """ITM's odds times exp(weight · (cosine - 1/2)), as a probability in [0, 1]; at weight 0 ITM alone.

    The cosine over the temperature is what ITC itself would bet, so 1 / temperature trusts both heads alike; they err
    on different texts (docs/numbers.md, "over several seeds").
    """
    against = math.exp(max(-700.0, min(700.0, weight * (0.5 - itc))))  # within what a float can hold
    return itm / (itm + (1 - itm) * against)


def bar(rule: Rule, web: Sequence[float], human: Sequence[float]) -> float:
    """The threshold that `rule` means for these scores.

    web:   scores of the web texts (used by `top`).
    human: scores of human pairs the filter was not trained on (used by `human`).
    """
    if rule.kind == "fixed":
        return rule.threshold
    scores = web if rule.kind == "top" else human
    if not len(scores):
        needed = "web texts" if rule.kind == "top" else "held-back human pairs"
        raise ConfigError(f"rule.kind={rule.kind!r} needs {needed}")
    return float(np.quantile(np.asarray(scores, dtype=float), 1 - rule.share))


def decide(row: Row, threshold: float, rule: Rule) -> Row:
    """The same row with its decision, what is kept of it, and why.

    kept: the web text fits (a synthetic one may be kept beside it); replaced: only the synthetic one fits;
    dropped: neither.
    A text without score was not judged (no filter) and passes.
    """
    if row.decision == "failed":
        return row
    keep_web = row.text_web is not None and (row.score_web is None or row.score_web >= threshold)
    synthetic_bar = min(1.0, threshold + rule.margin)
    keep_synthetic = bool(row.text_synthetic and row.text_synthetic.strip()) and (
        row.score_synthetic is None or row.score_synthetic >= synthetic_bar
    )
    if rule.best and keep_web and keep_synthetic and row.score_web is not None and row.score_synthetic is not None:
        keep_web = row.score_web >= row.score_synthetic
        keep_synthetic = not keep_web
    reason = "; ".join(
        _because(name, text, score, limit)
        for name, text, score, limit in (
            ("web", row.text_web, row.score_web, threshold),
            ("synthetic", row.text_synthetic, row.score_synthetic, synthetic_bar),
        )
        if text is not None
    )
    decision: Decision = "kept" if keep_web else "replaced" if keep_synthetic else "dropped"
    return replace(row, decision=decision, reason=reason, keep_web=keep_web, keep_synthetic=keep_synthetic)


def counts(rows: Sequence[Row]) -> dict[str, int]:
    """How many rows went in, and what became of them. They must add up, or CheckFailed is raised."""
    found = Counter(row.decision for row in rows)
    named = {name: found.pop(name, 0) for name in ("kept", "replaced", "dropped", "failed")}
    if found:
        raise CheckFailed(f"rows with an unknown decision: {dict(found)}")
    return {"in": len(rows), **named}


def _because(name: str, text: str, score: float | None, limit: float) -> str:
    if not text.strip():
        return f"the {name} text is empty"
    if score is None:
        return f"the {name} text was not judged"
    return f"the filter gave the {name} text {score:.3f} ({'≥' if score >= limit else '<'} {limit:.3f})"
