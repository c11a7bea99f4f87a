"""Measuring a run that is over: its models on clean pairs, or its filter on noisy ones of known truth."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from capfilt.bootstrap.config import BootstrapConfig
from capfilt.bootstrap.rounds import Cycle
from capfilt.clean.decide import joint_score
from capfilt.config import from_dict
from capfilt.data.collection import Collection, from_source
from capfilt.errors import ConfigError, DataError
from capfilt.evaluate.captions import extra_scores
from capfilt.evaluate.cleaning import filter_report
from capfilt.evaluate.model import at_px, evaluate
from capfilt.files import lease, read_json
from capfilt.models.blip import Blip
from capfilt.predict.predictor import Predictor
from capfilt.runtime import device
from capfilt.weights import store


def evaluate_run(out: Path, pairs: str | None = None, extras: Sequence[str] = ()) -> dict[str, Any]:
    """Evaluates every model of a run (or the one in the folder `out` itself) on the run's test set, or on `pairs`.

    Pairs of known noise (a `.truth.jsonl` beside them) are no test for the models, but for the run's filter: then that
    is evaluated. extras: `meteor` or `spice`, which need Java.
    """
    folders = sorted(p.parent for p in out.glob("models/*/config.json")) or [out]
    run = next((folder for folder in (out, *out.parents) if _is_run(folder)), None)
    if run is None and pairs is None:
        raise DataError(f"{out}: not a bootstrap run, so there is no test set in it. Give one with --pairs.")
    config = from_dict(BootstrapConfig, read_json(run / "config.json")) if run else None
    how = (config.captions, config.rerank) if config else ()
    with lease(run or out):
        if pairs is not None:
            px = config.sources.store_px if config else _loaded(folders[0]).model.config.vit.px
            test = from_source(pairs, out / "evaluated" / Path(pairs).stem, px, anew=True)
            if test.kinds is not None and config is not None and run is not None:
                return {"filter": _filter_on(test, config, run)}
        else:
            assert config is not None and run is not None
            test = Cycle(config, run).test
        scores = {}
        for folder in folders:
            found = evaluate(_loaded(folder, config), test, *how)
            more = extra_scores(found.captions, test.references, extras) if extras and found.captions else None
            scores[folder.name] = {**found.summary, **{name: whole for name, (whole, _) in (more or {}).items()}}
        return scores


def _loaded(folder: Path, config: BootstrapConfig | None = None) -> Predictor:
    model, tokenizer = store.load(folder)
    if not isinstance(model, Blip):
        raise ConfigError(f"{folder}: holds a {type(model).__name__}; name its task with --task")
    model.to(device())
    return Predictor(model, tokenizer, max_length=config.max_length) if config else Predictor(model, tokenizer)


def _filter_on(noisy: Collection, config: BootstrapConfig, run: Path) -> dict[str, Any]:
    """How a finished run's filter does on pairs that no model of it has seen, at the bar it was given in the run."""
    ledger = read_json(run / "stages.json").get("ledger")
    if ledger is None:
        raise DataError(f"{run}: this run has no filter yet. Let it finish with the command that began it.")
    predictor = _loaded(run / "cleaners/filter", config)
    pixels = at_px(np.asarray(noisy.pictures), predictor.model.config.vit.px)
    judged = predictor.match(pixels, [texts[:1] for texts in noisy.texts])
    scores = [joint_score(*of_image[0], config.rule.itc) for of_image in judged]
    assert noisy.match is not None and noisy.kinds is not None
    return filter_report(scores, noisy.match, noisy.kinds, ledger["threshold"])


def _is_run(folder: Path) -> bool:
    about = folder / "config.json"
    return about.is_file() and "pretrain" in read_json(about)
