"""A run's folder → the report that tells it. Reads files only: no model, no data set."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from capfilt.bootstrap.config import VARIANTS
from capfilt.errors import DataError
from capfilt.evaluate.cleaning import filter_report, roc_curve
from capfilt.evaluate.intervals import gain_interval
from capfilt.files import read_json, read_jsonl
from capfilt.pair import Row
from capfilt.report import Card, Counts, Filter, Metric, Report, Texts
from capfilt.report.record import Unit

SHOWN = ("tr1", "ir1", "cider", "truth", "coverage")
MORE = {
    "tr5": ("Text retrieval, TR@5", "as TR@1, but the right text may be among the first five"),
    "ir5": ("Image retrieval, IR@5", "as IR@1, but the right image may be among the first five"),
    "itc_tr1": ("TR@1 by cosine alone", "without the matching head, which orders the best candidates anew"),
    "itc_ir1": ("IR@1 by cosine alone", "without the matching head, which orders the best candidates anew"),
    "bleu4": ("BLEU-4", "runs of up to four words that a person's caption has too"),
    "rouge_l": ("ROUGE-L", "longest run of words in order that a person's caption has too"),
}


def tell(out: Path) -> Report:
    """The report of the run in `out`; a run that is not finished is a DataError."""
    if not is_told(out, ("noisy", "bootstrapped")):
        raise DataError(f"{out}: no finished run here. Run `capfilt bootstrap --out {out}` to its end first.")
    config, stages = read_json(out / "config.json"), read_json(out / "stages.json")
    rows = [Row(**row) for row in read_jsonl(out / "ledger.jsonl")]
    models = {p.stem: read_json(p) for p in sorted((out / "evaluated").glob("*.json")) if p.stem in VARIANTS}
    counted, ledger, whole = stages["ledger"]["counts"], stages["ledger"], stages.get("whole", {})
    truth = read_json(out / "truth.json")
    cards = read_json(out / "gallery.json")
    pictures = np.load(out / "gallery.npy", allow_pickle=False)
    demo = config["sources"]["pairs"] is None
    quality = _filter(rows, truth, ledger["threshold"])
    return Report(
        title="From noisy pairs to a better model",
        subtitle="the drawn world" if demo else f"{Path(config['sources']['pairs']).stem}",
        counts=Counts(counted["in"], *(counted[name] for name in ("kept", "replaced", "dropped", "failed"))),
        metrics=[m for m in (_metric(name, models) for name in (*SHOWN, *MORE)) if m is not None],
        filter=quality,
        texts=_texts(rows, truth, stages),
        scores_by_truth=_scores_by_truth(rows, truth),
        roc=_rocs(rows, truth),
        losses=_losses(out),
        gallery=[_card(card, picture) for card, picture in zip(cards, pictures, strict=True)],
        settings=_flat(config),
        stages={name: facts["seconds"] for name, facts in stages.items() if "seconds" in facts},
        seconds=sum(facts.get("seconds", 0.0) for facts in stages.values()),
        peak_mib=whole.get("peak_mib"),
        machine=_machine(whole.get("machine", {})),
        notes=[_unread(name, reasons) for name, reasons in stages["data"].get("unread", {}).items()],
    )


def is_told(out: Path, variants: Iterable[str]) -> bool:
    """Whether the run in `out` has all that a report on `variants` needs; the gallery is what a run writes last."""
    return all((out / name).is_file() for name in (*(f"evaluated/{v}.json" for v in variants), "gallery.json"))


def _metric(name: str, models: dict[str, Any]) -> Metric | None:
    values = {variant: model["summary"].get(name) for variant, model in models.items()}
    if values.get("noisy") is None:
        return None
    gain = None
    before, after = (models[v]["per_query"].get(name) for v in ("noisy", "bootstrapped"))
    if before and after:
        gain = gain_interval(np.asarray(before, float), np.asarray(after, float))
    extra = {v: value for v, value in values.items() if v not in ("noisy", "bootstrapped")}
    unit: Unit = "points" if name in ("cider", "bleu4", "rouge_l") else "share"
    return Metric(name, values["noisy"], values["bootstrapped"], gain, extra, unit, *MORE.get(name, ("", "")))


def _judged(rows: list[Row], truth: dict[str, Any]) -> list[tuple[Row, str, bool]]:
    """Web texts with a score and a known truth: (row, kind, match)."""
    known = truth["web"]
    return [(row, *known[row.key]) for row in rows if row.key in known and row.score_web is not None]


def _filter(rows: list[Row], truth: dict[str, Any], threshold: float) -> Filter:
    judged = _judged(rows, truth)
    if not judged:
        return Filter(threshold=threshold)
    scores = np.array([row.score_web for row, _, _ in judged])
    match, kinds = np.array([m for _, _, m in judged]), [kind for _, kind, _ in judged]
    found = filter_report(scores, match, kinds, threshold)
    kept = {k: (sum(row.keep_web for row, kind, _ in judged if kind == k), kinds.count(k)) for k in sorted(set(kinds))}
    names = {f.name for f in dataclasses.fields(Filter)} & found.keys() - {"threshold", "kept_by_kind"}
    return Filter(**{name: found[name] for name in names}, threshold=threshold, kept_by_kind=kept)


def _texts(rows: list[Row], truth: dict[str, Any], stages: dict[str, Any]) -> Texts:
    web, synthetic = truth["web_facts"], truth["synthetic_facts"]
    kept = [web[r.key] for r in rows if r.keep_web and r.key in web]
    kept += [synthetic[r.key] for r in rows if r.keep_synthetic and r.key in synthetic]
    return Texts(
        human=stages["data"].get("human"),
        synthetic=sum(row.text_synthetic is not None for row in rows),
        kept_web=sum(row.keep_web for row in rows),
        kept_synthetic=sum(row.keep_synthetic for row in rows),
        truth_web=_share(web.values()),
        truth_synthetic=_share(synthetic.values()),
        truth_cleaned=_share(kept),
    )


def _share(facts) -> float | None:
    facts = list(facts)
    stated = sum(s for _, s in facts)
    return sum(t for t, _ in facts) / stated if stated else None


def _scores_by_truth(rows: list[Row], truth: dict[str, Any]) -> list[tuple[str, list[float]]]:
    by_kind: dict[str, list[float]] = {}
    for row, kind, _ in _judged(rows, truth):
        by_kind.setdefault(kind, []).append(row.score_web or 0.0)
    return sorted(by_kind.items())


def _rocs(rows: list[Row], truth: dict[str, Any]) -> dict[str, list[tuple[float, float]]]:
    judged = _judged(rows, truth)
    right = [row.score_web for row, _, match in judged if match]
    curves = {}
    for kind in sorted({kind for _, kind, match in judged if not match}):
        wrong = [row.score_web for row, k, match in judged if k == kind and not match]
        labels = np.array([True] * len(right) + [False] * len(wrong))
        if right and wrong:
            x, y = roc_curve(np.array(right + wrong), labels)[:2]
            curves[kind] = list(zip(map(float, x), map(float, y), strict=True))
    return curves


def _losses(out: Path) -> dict[str, list[tuple[float, float]]]:
    curves: dict[str, list[tuple[float, float]]] = {}
    for path in sorted(out.glob("*/*/metrics.jsonl")):
        stage = str(path.parent.relative_to(out)).replace("/", ", ")
        for row in read_jsonl(path):
            for loss in ("itc", "itm", "lm"):
                if loss in row:
                    curves.setdefault(f"{stage}/{loss}", []).append((row["step"], row[loss]))
    return curves


def _card(card: dict[str, Any], picture: np.ndarray) -> Card:
    facts = {name: tuple(card[name]) if card[name] else None for name in ("truth_web", "truth_synthetic")}
    return Card(**{**card, **facts}, image=picture if card["section"] != "failed" else None)


def _unread(name: str, reasons: dict[str, int]) -> str:
    listed = ", ".join(f"{reason} {count}" for reason, count in reasons.items())
    return f"{sum(reasons.values())} rows of the {name} pairs could not be used: {listed}."


def _flat(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in config.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat


def _machine(facts: dict[str, Any]) -> str:
    if not facts:
        return ""
    where = facts.get("gpu") or f"{facts['cpu']}, {facts['threads']} threads"
    return f"{where}, torch {facts['torch']}, Python {facts['python']}"
