"""A made-up run with everything a report can show, hostile captions included."""

from dataclasses import replace

import numpy as np
import pytest

from capfilt.report import Card, Counts, Filter, Metric, Report, Texts

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "fish & chips &amp; 'quotes' `ticks` </bdi></style>",
    "safe \u202egnp.exe\u202c and \u200bhidden \u0000 nul \ud800 lone",
    "see https://evil.example/a.png or //evil.example/b.js url(http://evil.example)",
    "word " * 3000,
    "x" * 5000,
    "",
    "👩‍👩‍👧 ein Mädchen, 女の子, بنت",
)
JUDGED = "the filter gave the web text 0.040 (< 0.500); the filter gave the synthetic text 0.910 (≥ 0.500)"


def picture(seed: int, size: int = 48) -> np.ndarray:
    """(size, size, 3) uint8: a disc or square of one colour on a plain ground."""
    draw = np.random.default_rng(seed)
    ground, colour = draw.integers(170, 255, 3), draw.integers(20, 200, 3)
    y, x = np.mgrid[:size, :size] / size - 0.5
    inside = (x**2 + y**2 < 0.09) if seed % 2 else (np.abs(x) + np.abs(y) < 0.33)
    return np.where(inside[..., None], colour, ground).astype(np.uint8)


def cards() -> list[Card]:
    """Twenty ordinary cards, then one for each hostile text."""
    good, bad = "a small red circle above a large blue square on a white ground", "IMG_2041.JPG"
    made = [
        Card("kept", picture(i), good, "a red circle", 0.93, 0.62, True, i % 2 == 0, kind="clean") for i in range(14)
    ]
    made += [
        Card("replaced", picture(i), bad, good, 0.04, 0.91, kind="junk", truth_web=(0, 0), truth_synthetic=(4, 4))
        for i in range(20, 23)
    ]
    made += [
        Card("dropped", picture(31), bad, good, 0.4996, 0.11, kind="swapped", truth_web=(1, 4), truth_synthetic=(2, 4)),
        Card("dropped", picture(32, 96), None, good, None, 0.2),
        Card("failed", None, good, reason="truncated: PNG of 99 bytes stops early"),
        Card("failed", None, None, reason="no_text: captions.jsonl:3: no caption"),
    ]
    made = [replace(card, reason=card.reason or JUDGED) for card in made]
    return made + [Card("dropped", picture(40 + i), t, t, 0.1, 0.1, reason=t, kind=t) for i, t in enumerate(HOSTILE)]


def full_report() -> Report:
    """Every part filled."""
    draw = np.random.default_rng(0)
    steps = np.arange(1200)
    fall = 2.0 + 5 * np.exp(-steps / 300) + draw.normal(0, 0.25, len(steps))
    roc = np.linspace(0, 1, 60)
    return Report(
        title="Demo: drawn scenes",
        drawn=True,
        models={"noisy": "human pairs and all web pairs", "filter": "human pairs and kept web texts"},
        cleaners="Two copies of the first model, trained further on the human pairs, became captioner and filter.",
        subtitle="12,000 noisy pairs, two models, one cleaning, seed 0",
        counts=Counts(12000, 4870, 4911, 2209, 10),
        metrics=(
            Metric("tr1", 0.381, 0.452, (0.071, 0.052, 0.090), {"filter": 0.431, "seven": 0.377}),
            Metric("ir1", 0.302, 0.371, (0.069, 0.051, 0.088), {"filter": 0.341, "seven": 0.311}),
            Metric("cider", 0.812, 1.104, (0.292, 0.210, 0.371), {"filter": 0.944, "seven": 0.801}),
            Metric("truth", 0.802, 0.921, (0.119, 0.101, 0.140), {"filter": 0.861}),
            Metric("coverage", 0.651, 0.643, (-0.008, -0.021, 0.006), {"filter": 0.64}),
            Metric("bleu4", 0.405, 0.472),
            Metric("itc_tr1", 0.036, 0.73),
        ),
        filter=Filter(
            0.5,
            0.981,
            0.842,
            0.996,
            0.931,
            0.884,
            {"auc_swap": (0.981, 0.977, 0.984)},
            {
                "clean": (4010, 4300),
                "padded": (610, 700),
                "swapped": (190, 4900),
                "attribute": (330, 1100),
                "junk": (12, 1000),
            },
        ),
        texts=Texts(2000, 11990, 4870, 6120, 0.461, 0.814, 0.943),
        scores_by_truth=[
            ("matching", draw.beta(8, 1.5, 5000)),
            ("swapped", draw.beta(1, 9, 4900)),
            ("attribute", draw.beta(2, 3, 1100)),
        ],
        roc={"swapped": [(x, x**0.06) for x in roc], "attribute": [(x, x**0.3) for x in roc]},
        losses={
            "models/noisy/itc": [*zip(steps, fall, strict=True)],
            "models/noisy/itm": [*zip(steps, fall / 9, strict=True)],
            "models/noisy/lm": [*zip(steps, fall * 0.7, strict=True)],
            "models/bootstrapped/itc": [(0, 6.5), (100, 4.2), (200, 3.1)],
        },
        gallery=cards(),
        settings={"seed": 0, "model": {"width": 128, "depth": 4, "note": HOSTILE[0]}, "clean": {"threshold": 0.5}},
        stages={"models/noisy": 192.1, "cleaners/filter-1": 61.0, "clean/web": 84.4, "models/bootstrapped": 190.8},
        seconds=588.2,
        peak_mib=2110,
        machine="2 cores",
        notes=("Measured once, with one seed.",),
    )


@pytest.fixture(scope="session")
def report() -> Report:
    """Every part filled."""
    return full_report()


@pytest.fixture
def bare() -> Report:
    """Real data: no truth, no kinds, nothing but counts."""
    return Report("bare", Counts(3, kept=1, dropped=2))
