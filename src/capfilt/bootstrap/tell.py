"""A run's folder → the report that tells it. Reads files only: no model, no data set."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from capfilt.bootstrap.config import VARIANTS
from capfilt.errors import DataError
from capfilt.evaluate.cleaning import FAMILIES, filter_report, roc_curve
from capfilt.evaluate.intervals import auc_interval, gain_interval
from capfilt.files import read_json, read_jsonl
from capfilt.pair import Row
from capfilt.report import Card, Counts, Filter, Metric, Report, Texts
from capfilt.report.record import FILTER_NAMES
from capfilt.report.words import NOTE_WORDS, REASON_WORDS

SHOWN = ("tr1", "ir1", "cider", "truth", "coverage", "tr5", "ir5", "itc_tr1", "itc_ir1", "bleu4", "rouge_l")
COMPARED = ("noisy", "bootstrapped")  # the first and the second model; others are controls and ablations


def tell(out: Path) -> Report:
    """The report of the run in `out`; a run that is not finished is a DataError."""
    if not is_told(out, COMPARED):
        raise DataError(f"{out}: no finished run here. Run `capfilt bootstrap --out {out}` to its end first.")
    config, stages = read_json(out / "config.json"), read_json(out / "stages.json")
    rows = [Row(**row) for row in read_jsonl(out / "ledger.jsonl")]
    models = {p.stem: read_json(p) for p in sorted((out / "evaluated").glob("*.json")) if p.stem in VARIANTS}
    counted, ledger, whole = stages["ledger"]["counts"], stages["ledger"], stages.get("whole", {})
    truth = read_json(out / "truth.json")
    cards = read_json(out / "gallery.json")
    pictures = np.load(out / "gallery.npy", allow_pickle=False)
    drawn = config["world"] is not None and config["sources"]["pairs"] is None
    quality = _filter(rows, truth, ledger["threshold"])
    return Report(
        title="From noisy pairs to a better model",
        subtitle="on drawn scenes" if drawn else f"{Path(config['sources']['pairs']).stem}",
        counts=Counts(counted["in"], *(counted[name] for name in ("kept", "replaced", "dropped", "failed"))),
        metrics=[m for m in (_metric(name, models) for name in SHOWN) if m is not None],
        drawn=drawn,
        models={name: VARIANTS[name] for name in VARIANTS if name in models},
        cleaners=_cleaners(config),
        filter=quality,
        texts=_texts(rows, truth, stages),
        scores_by_truth=_scores_by_truth(rows, truth),
        roc=_rocs(rows, truth),
        losses=_losses(out, stages),
        gallery=[_card(card, picture) for card, picture in zip(cards, pictures, strict=True)],
        settings=_flat(config),
        stages={name: facts["seconds"] for name, facts in stages.items() if "seconds" in facts},
        seconds=sum(facts.get("seconds", 0.0) for stage, facts in stages.items() if not _beside(stage)),
        peak_mib=whole.get("peak_mib"),
        machine=_machine(whole.get("machine", {})),
        notes=_notes(stages["data"]),
    )


def is_told(out: Path, variants: Iterable[str]) -> bool:
    """Whether the run in `out` has all that a report on `variants` needs; the gallery is what a run writes last."""
    return all((out / name).is_file() for name in (*(f"evaluated/{v}.json" for v in variants), "gallery.json"))


def _cleaners(config: dict[str, Any]) -> str:
    """How captioner and filter were made."""
    rounds = config["filter_rounds"] > 1
    if config["tied"]:
        more = " It also learned from web texts that it had let through itself." if rounds else ""
        return f"One copy of the first model, trained further on the human pairs, became captioner and filter.{more}"
    kept = [*(["filter"] if rounds else []), *(["captioner"] if config["captioner_learns"] == "kept" else [])]
    more = f" The {' and the '.join(kept)} also learned from web texts that the filter let through." if kept else ""
    return f"Two copies of the first model, trained further on the human pairs, became captioner and filter.{more}"


def _beside(stage: str) -> bool:
    """Whether a stage only served a model beside the two that every run compares."""
    folder, _, name = stage.partition("/")
    return folder in ("models", "evaluated") and name not in COMPARED


def _metric(name: str, models: dict[str, Any]) -> Metric | None:
    """A measure of all models. Its gain is the mean of paired differences, so BLEU-4, which is a number of the whole
    test set and no mean of its images', has none."""
    values = {variant: model["summary"].get(name) for variant, model in models.items()}
    if values.get("noisy") is None:
        return None
    gain = None
    before, after = (models[variant]["per_query"].get(name) for variant in COMPARED)
    if before and after and name != "bleu4":
        by_text = name.removeprefix("itc_").startswith("ir")
        groups = models["noisy"].get("text_image") if by_text else None  # files of older runs lack it
        gain = gain_interval(np.asarray(before, float), np.asarray(after, float), groups=groups or None)
    extra = {v: value for v, value in values.items() if v not in COMPARED}
    return Metric(name, values["noisy"], values["bootstrapped"], gain, extra)


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
    intervals = {}
    for family in FAMILIES:
        own = match | np.array([kind.startswith(family) for kind in kinds])
        if found[f"auc_{family}"] is not None:
            # a draw costs as much as there are texts, and 500 place the ends of an interval well enough
            intervals[f"auc_{family}"] = auc_interval(scores[own], match[own], n=500)
    named = {name: found[name] for name in FILTER_NAMES}
    return Filter(threshold, **named, auc_intervals=intervals, kept_by_kind=kept)


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


def _losses(out: Path, stages: Iterable[str]) -> dict[str, list[tuple[float, float]]]:
    curves: dict[str, list[tuple[float, float]]] = {}
    for stage in stages:
        path = out / stage / "metrics.jsonl"
        for row in read_jsonl(path) if path.is_file() else ():
            for loss in ("itc", "itm", "lm"):
                if loss in row:
                    curves.setdefault(f"{stage}/{loss}", []).append((row["step"], row[loss]))
    return curves


def _card(card: dict[str, Any], picture: np.ndarray) -> Card:
    facts = {name: tuple(card[name]) if card[name] else None for name in ("truth_web", "truth_synthetic")}
    return Card(**{**card, **facts}, image=picture if card["section"] != "failed" else None)


def _notes(data: dict[str, Any]) -> list[str]:
    """What a reader must know of the collections: rows that could not be used, and what was odd of those that were."""
    odd = [
        f"Among the {name} pairs: {count} {NOTE_WORDS.get(code, code)}."
        for name, found in data.get("notes", {}).items()
        for code, count in found.items()
    ]
    return [_unread(name, reasons) for name, reasons in data.get("unread", {}).items()] + odd


def _unread(name: str, reasons: dict[str, int]) -> str:
    listed = "; ".join(f"{REASON_WORDS.get(reason, reason)} ({count})" for reason, count in reasons.items())
    count = sum(reasons.values())
    return f"{count} row{'' if count == 1 else 's'} of the {name} pairs could not be used: {listed}."


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
