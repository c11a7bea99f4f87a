"""What a cleaning run's page says, as plain data: counts, bins, and a few rows with small JPEGs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from capfilt.errors import CheckFailed

DECISIONS = ("keep", "replace", "drop", "failed")


@dataclass(frozen=True)
class Sample:
    """One row as the page shows it.

    decision: `keep`, `replace`, `drop` or `failed`.
    text: what stands for the row in the end, the first of `texts`, which are all that stay.
    score_*: what the policy compared, None where nothing was judged.
    image: a small JPEG; where there is none, `missing` says why.
    """

    id: str
    key: str
    source: str
    decision: str
    reason: str
    text: str | None = None
    texts: Sequence[str] = ()
    web_text: str | None = None
    synthetic_text: str | None = None
    score_web: float | None = None
    score_synthetic: float | None = None
    itm_web: float | None = None
    itm_synthetic: float | None = None
    itc_web: float | None = None
    itc_synthetic: float | None = None
    image: bytes | None = None
    missing: str = "no image"


@dataclass(frozen=True)
class Gallery:
    """Rows that share something. total: how many of them there are; `rows` are drawn by their ids, or the first."""

    name: str
    title: str
    meaning: str
    decision: str
    rows: Sequence[Sample]
    total: int


@dataclass(frozen=True)
class Group:
    """Images that are the same, the one that stays first; `total` with those not shown."""

    rows: Sequence[Sample]
    total: int


@dataclass(frozen=True)
class Counted:
    """Values counted in equal bins from `low` to `high`; bars: where texts pass, as label → value."""

    name: str
    low: float
    high: float
    series: Mapping[str, Sequence[int]]
    bars: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Bars:
    """How many rows there are for each pair of scores, so that another bar can be tried without the rows.

    A level is 0 where no bar lets a text pass, and 1 + k for a score in [low + k·step, low + (k + 1)·step), up to
    `steps`. A bar at low + k·step lets levels above k pass.

    policy: by whose rule (`clean.policies`).
    cells:  (level of the web text, of the synthetic text, 1 where the web text scores no less than it, rows).
    fixed:  rows that no bar moves (unreadable, out by a rule, or a person has spoken), by decision.
    web, synthetic: the bars of the run; None where each group has its own.
    """

    policy: str
    low: float
    step: float
    steps: int
    cells: Sequence[tuple[int, int, int, int]]
    fixed: Mapping[str, int]
    web: float | None = None
    synthetic: float | None = None

    def counts(self, web: int, synthetic: int) -> dict[str, int]:
        """Decision → rows, with the bars so many steps above `low`."""
        found = {name: self.fixed.get(name, 0) for name in DECISIONS}
        for level, other, no_less, rows in self.cells:
            found[self._decision(level > web, other > synthetic, bool(no_less), level > 0)] += rows
        return found

    def _decision(self, web: bool, synthetic: bool, no_less: bool, there: bool) -> str:
        """As `report.js` has it too."""
        if self.policy == "keep-web":
            synthetic = False
        elif self.policy == "both":
            web, synthetic = (web or synthetic) and there, web or synthetic
        elif self.policy == "best":
            web = web and (no_less or not synthetic)
        return "keep" if web else "replace" if synthetic else "drop"


@dataclass(frozen=True)
class Curve:
    """Precision against recall of the filter, by people's word.

    points: (recall, precision). judged: texts. average: precision. best: the bar of the best F1.
    """

    points: Sequence[tuple[float, float]]
    judged: int
    average: float
    best: float


@dataclass(frozen=True)
class KindOfText:
    """Web texts of one kind, of which it is known whether they fit: how many, put out by a rule, and kept."""

    kind: str
    fits: bool
    texts: int
    ruled: int
    kept: int


@dataclass(frozen=True)
class Truth:
    """How web texts fared of which it is known whether they fit.

    auc:    head (`ITM`, `ITC`, `both`) → chance that a text that fits scores above one that does not; .5 is guessing.
    weight: of ITC beside ITM that is best on these very texts, of those tried.
    curves: head → (share of wrong texts at or above a bar, share of right ones).
    """

    kinds: Sequence[KindOfText]
    auc: Mapping[str, float] = field(default_factory=dict)
    weight: float | None = None
    curves: Mapping[str, Sequence[tuple[float, float]]] = field(default_factory=dict)

    @property
    def before(self) -> float | None:
        """The share of all these texts that fits."""
        return _share(self._sum("texts", True), self._sum("texts"))

    @property
    def precision(self) -> float | None:
        """The share of the kept that fits."""
        return _share(self._sum("kept", True), self._sum("kept"))

    @property
    def recall(self) -> float | None:
        """The share of those that fit that is kept."""
        return _share(self._sum("kept", True), self._sum("texts", True))

    @property
    def counts(self) -> tuple[int, int]:
        """Texts, and texts that are kept."""
        return self._sum("texts"), self._sum("kept")

    def _sum(self, which: str, right: bool = False) -> int:
        return sum(getattr(kind, which) for kind in self.kinds if kind.fits or not right)


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


@dataclass(frozen=True)
class CleanRecord:
    """A run. Rows in must equal rows kept, replaced, dropped and failed.

    funnel:   (name, rows that came so far, what happens to the others).
    sources:  source → decision → rows, the largest first.
    reasons:  (decision, kind of reason in words, rows), the most frequent first.
    text_rules: rule that puts web texts out and leaves images in → rows.
    failures: (reason code, rows, a few of them).
    settings: what the run was asked for, flat.
    """

    title: str
    counts: Mapping[str, int]
    funnel: Sequence[tuple[str, int, str]] = ()
    sources: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    reasons: Sequence[tuple[str, str, int]] = ()
    text_rules: Mapping[str, int] = field(default_factory=dict)
    scores: Sequence[Counted] = ()
    bars: Bars | None = None
    curve: Curve | None = None
    truth: Truth | None = None
    galleries: Sequence[Gallery] = ()
    duplicates: Sequence[Group] = ()
    duplicate_groups: int = 0
    failures: Sequence[tuple[str, int, Sequence[Sample]]] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()

    def check(self) -> None:
        """Raises CheckFailed unless in = keep + replace + drop + failed."""
        parts = [self.counts[name] for name in DECISIONS]
        if sum(parts) != self.counts["in"] or min(parts) < 0:
            written = " + ".join(f"{rows} {name}" for name, rows in zip(DECISIONS, parts, strict=True))
            raise CheckFailed(f"report: {self.counts['in']} rows in, but {written} = {sum(parts)}: a row was lost")
