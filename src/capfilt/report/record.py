"""What a report says, as plain data: numbers, texts and uint8 images; no tensors, no models."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from capfilt.errors import CheckFailed
from capfilt.pair import Decision

Interval = tuple[float, float, float]
Unit = Literal["share", "points"]
POINTS = ("cider", "bleu4", "rouge_l")
METRIC_NAMES = ("tr1", "ir1", "cider", "truth", "coverage")
FILTER_NAMES = ("auc_swap", "auc_attribute", "auc_junk", "precision", "recall")


@dataclass(frozen=True)
class Metric:
    """One row of the result table: the same measure on the model before and after.

    name:         `tr1`, `ir1`, `cider`, `truth`, `coverage`, or any other name.
    noisy:        its value for the first model, trained on the noisy pairs; None where unknown.
    bootstrapped: its value for the second model, trained on the cleaned set.
    gain:         (mean, low, high) of bootstrapped minus noisy, in the same unit; None where it cannot be said.
    extra:        model name → value, for controls and ablations; one more column each.
    """

    name: str
    noisy: float | None = None
    bootstrapped: float | None = None
    gain: Interval | None = None
    extra: Mapping[str, float | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.unit == "points":
            return
        for value in (self.noisy, self.bootstrapped, *self.extra.values()):
            if value is not None and not -1e-6 <= value <= 1 + 1e-6:
                raise CheckFailed(f"report: {self.name} is {value:g}, but a share lies between 0 and 1.")

    @property
    def unit(self) -> Unit:
        """`share` (0 to 1, shown as percent) or `points` (shown as it is)."""
        return "points" if self.name in POINTS else "share"


@dataclass(frozen=True)
class Counts:
    """What became of the web pairs. Every pair that went in must come out as exactly one of the four.

    kept: the web text stayed; replaced: only the synthetic text stayed; dropped: no text fitted;
    failed: the pair could not be read.
    """

    given: int
    kept: int = 0
    replaced: int = 0
    dropped: int = 0
    failed: int = 0

    def check(self) -> None:
        """Raises CheckFailed unless given = kept + replaced + dropped + failed, none negative."""
        parts = self.parts()
        if min(parts.values()) < 0 or sum(parts.values()) != self.given:
            written = " + ".join(f"{number} {name}" for name, number in parts.items())
            raise CheckFailed(
                f"report: the counts do not add up: {self.given} in, but {written} = {sum(parts.values())}. "
                "A pair was lost or counted twice: read the ledger, or clean again into an empty folder."
            )

    def parts(self) -> dict[str, int]:
        """Decision → number of pairs, in the order shown."""
        return {"kept": self.kept, "replaced": self.replaced, "dropped": self.dropped, "failed": self.failed}


@dataclass(frozen=True)
class Filter:
    """How well the filter tells right from wrong texts. All shares lie in [0, 1]; None where the truth is unknown.

    threshold: a text at or above this score stays.
    auc_swap, auc_attribute, auc_junk: area under the ROC curve of that kind of noise against matching texts.
    precision, recall: at the threshold; a positive is a text that matches its image.
    auc_intervals: name of an AUC → (value, low, high).
    kept_by_kind: kind → (texts kept, texts of that kind).
    """

    threshold: float | None = None
    auc_swap: float | None = None
    auc_attribute: float | None = None
    auc_junk: float | None = None
    precision: float | None = None
    recall: float | None = None
    auc_intervals: Mapping[str, Interval] = field(default_factory=dict)
    kept_by_kind: Mapping[str, tuple[int, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Texts:
    """The texts that flowed through; None where unknown.

    human:          human pairs, which teach every model.
    synthetic:      texts the captioner wrote.
    kept_web, kept_synthetic: how many of each the filter let through (one image can keep both).
    truth_web, truth_synthetic, truth_cleaned: share in [0, 1] of stated facts (or of texts) that hold,
        known only where the data knows its own truth.
    """

    human: int | None = None
    synthetic: int | None = None
    kept_web: int | None = None
    kept_synthetic: int | None = None
    truth_web: float | None = None
    truth_synthetic: float | None = None
    truth_cleaned: float | None = None


@dataclass(frozen=True)
class Card:
    """One picture of the gallery and what was decided about its texts.

    section:   kept, replaced, dropped or failed.
    image:     (H, W, 3) uint8, or None where it could not be read.
    web, synthetic: the two texts; None where there was none.
    score_web, score_synthetic: what the filter gave, in [0, 1].
    keep_web, keep_synthetic:   which text survived; None works it out from the section.
    reason:    the ledger's: a sentence, or for failed pairs `code: message`.
    kind:      what was wrong with the web text, where the data knows.
    truth_web, truth_synthetic: (facts true, facts stated), where the data knows.
    """

    section: Decision
    image: np.ndarray | None = None
    web: str | None = None
    synthetic: str | None = None
    score_web: float | None = None
    score_synthetic: float | None = None
    keep_web: bool | None = None
    keep_synthetic: bool | None = None
    reason: str = ""
    kind: str | None = None
    truth_web: tuple[int, int] | None = None
    truth_synthetic: tuple[int, int] | None = None

    @property
    def web_stays(self) -> bool:
        """Whether the web text survived."""
        return self.section == "kept" if self.keep_web is None else self.keep_web

    @property
    def synthetic_stays(self) -> bool:
        """Whether the synthetic text survived."""
        return self.section == "replaced" if self.keep_synthetic is None else self.keep_synthetic


@dataclass(frozen=True)
class Report:
    """Everything one bootstrap run has to tell. Empty or None parts are left out of the page.

    drawn:   whether pictures and texts were made by code (the drawn world), so that their truth is known.
    models:  name of each compared model → what it learned from.
    cleaners: how captioner and filter were made, as sentences.
    scores_by_truth: (label, scores in [0, 1]) for each kind of web text.
    losses:  curve name → (step, loss) points; `stage/name` puts the curves of one stage into one picture.
    roc:     curve name → (false positive rate, true positive rate) points.
    stages:  stage → seconds, of every model that the run trained.
    seconds: the sum over the stages that the first and the second model need. Not the time on the wall: what ran before
             a stop counts, the pause does not, nor do the models that a run compares beside the two.
    peak_mib: most memory held. machine: where it ran.
    notes:   sentences a reader must know (warnings, what was not measured).
    """

    title: str
    counts: Counts
    subtitle: str = ""
    drawn: bool = False
    models: Mapping[str, str] = field(default_factory=dict)
    cleaners: str = ""
    metrics: Sequence[Metric] = ()
    filter: Filter | None = None
    texts: Texts | None = None
    scores_by_truth: Sequence[tuple[str, Sequence[float]]] = ()
    roc: Mapping[str, Sequence[tuple[float, float]]] = field(default_factory=dict)
    losses: Mapping[str, Sequence[tuple[float, float]]] = field(default_factory=dict)
    gallery: Sequence[Card] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    stages: Mapping[str, float] = field(default_factory=dict)
    seconds: float | None = None
    peak_mib: float | None = None
    machine: str = ""
    notes: Sequence[str] = ()

    def metric(self, name: str) -> Metric:
        """The metric of that name; one without values where it was not measured."""
        return next((m for m in self.metrics if m.name == name), Metric(name))


def results_json(report: Report) -> dict[str, Any]:
    """The run's numbers under fixed names, None where unknown. Raises CheckFailed when the counts do not add up."""
    report.counts.check()
    metrics = {name: report.metric(name) for name in METRIC_NAMES}
    found = report.filter or Filter()
    return {
        "noisy": {name: _number(m.noisy) for name, m in metrics.items()},
        "bootstrapped": {name: _number(m.bootstrapped) for name, m in metrics.items()},
        "gain": {name: m.gain and [_number(v) for v in m.gain] for name, m in metrics.items()},
        "filter": {name: _number(getattr(found, name)) for name in FILTER_NAMES},
        "counts": {"in": int(report.counts.given), **{k: int(v) for k, v in report.counts.parts().items()}},
        "seconds": _number(report.seconds),
        "peak_mib": _number(report.peak_mib),
    }


def _number(value: float | None) -> float | None:
    """A plain JSON number: numpy scalars become floats, and what is not finite is unknown."""
    return None if value is None or not np.isfinite(value) else float(value)
