"""The cycle: train on noisy pairs, fine-tune a captioner and a filter, clean, train again, compare, tell.

    noisy ─► M0 ─┬─► captioner ─► synthetic texts ─┐
                 └─► filter ─────► scores ─────────┴─► ledger ─► cleaner set ─► M1 ─► M0 against M1

Every stage lives in its own folder of the run and is found again when the same command runs again.
"""

import dataclasses
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from capfilt.bootstrap.config import BootstrapConfig, Variant
from capfilt.bootstrap.tell import tell
from capfilt.bootstrap.truth import keep_truth
from capfilt.clean.decide import bar, counts, decide
from capfilt.clean.shards import in_shards
from capfilt.config import from_dict, to_dict
from capfilt.data.collection import Collection, from_source, from_world
from capfilt.data.table import Batches, PairTable, Unmatched
from capfilt.data.world import World
from capfilt.errors import ConfigError, DataError
from capfilt.evaluate.model import at_px, evaluate
from capfilt.files import lease, read_json, write_json, write_jsonl
from capfilt.inputs.tokenizer import TextTokenizer
from capfilt.models.blip import Blip, Objective, respecialised
from capfilt.pair import Row
from capfilt.predict.predictor import Predictor
from capfilt.report import Report, results_json, write_report
from capfilt.runtime import derive, machine, peak_mib, sigterm_raises
from capfilt.train.loop import TrainConfig, fit
from capfilt.weights import store


def bootstrap(config: BootstrapConfig, out: Path, variants: Iterable[Variant] = ("noisy", "bootstrapped")) -> Report:
    """Runs the cycle into `out` and returns its report; what is done already is not done again.

    variants: which training sets to compare; `noisy` is always among them, since the cycle starts there.
    """
    with lease(out), sigterm_raises():
        _same_config(config, out)
        cycle = Cycle(config, out)
        for variant in dict.fromkeys(("noisy", *variants)):
            cycle.evaluated(variant)
        keep_truth(cycle)
        cycle.note("whole", peak_mib=peak_mib(), machine=machine())
        return _write(out)


def rewrite_report(out: Path) -> Path:
    """Makes the page of a finished run anew from what the run left in its folder."""
    _write(out)
    return out / "report.html"


def evaluate_run(out: Path, pairs: Path | None = None) -> dict[str, Any]:
    """Evaluates every model of a run (or the one in the folder `out` itself) on the run's test set, or on `pairs`."""
    folders = sorted(p.parent for p in out.glob("models/*/config.json")) or [out]
    run = next((p for p in (out, *out.parents) if (p / "config.json").is_file() and "pretrain" in read_json(p / "config.json")), None)
    if run is None and pairs is None:
        raise DataError(f"{out}: not a bootstrap run, so there is no test set in it. Give one with --pairs.")
    config = from_dict(BootstrapConfig, read_json(run / "config.json")) if run else None
    if pairs is not None:
        px = store.load(folders[0])[0].config.vit.px
        test = from_source(str(pairs), out / "evaluated" / Path(pairs).stem, px)
    else:
        assert config is not None and run is not None
        test = Cycle(config, run).test
    found = {}
    for folder in folders:
        predictor = Predictor(*store.load(folder))
        found[folder.name] = evaluate(predictor, test, config.captions if config else None).summary
    return found


def pretrain(config: BootstrapConfig, out: Path) -> dict[str, Any]:
    """The first stage alone: one model on the noisy set, evaluated on the held-out pairs. Returns its scores."""
    with lease(out), sigterm_raises():
        _same_config(config, out)
        return Cycle(config, out).evaluated("noisy")["summary"]


def _same_config(config: BootstrapConfig, out: Path) -> None:
    about = out / "config.json"
    if about.is_file() and read_json(about) != to_dict(config):
        raise ConfigError(f"{out}: holds a run with other settings. Use another --out, or delete the folder.")
    write_json(about, to_dict(config))


class Cycle:
    """The stages of one run, each made when it is first asked for."""

    def __init__(self, config: BootstrapConfig, out: Path):
        self.config, self.out = config, out
        self.human, self.held_back, self.web, self.test = self._data()
        self.tokenizer = self._tokenizer()
        self._made: dict[str, Any] = {}

    # ---- data ---------------------------------------------------------------------------------------------------

    def _data(self) -> tuple[Collection, Collection, Collection, Collection]:
        config, sources = self.config, self.config.sources
        began = time.monotonic()
        if sources.pairs is None:
            if config.world is None:
                raise ConfigError("nothing to learn from: give --pairs and --human, or leave the drawn world on")
            world = World(config.world)
            human = from_world(world, "human", config.human + config.held_back)
            web, test = from_world(world, "web", config.web), from_world(world, "test", config.test)
        else:
            if sources.human is None:
                raise ConfigError("--pairs needs --human: clean pairs that teach the captioner and the filter")
            px, data = sources.store_px, self.out / "data"
            human = from_source(sources.human, data / "human", px)
            web = from_source(sources.pairs, data / "web", px, one_text=True)
            if sources.test is not None:
                test = from_source(sources.test, data / "test", px)
            else:
                cut = len(human) - max(2, len(human) // 10)
                human, test = human.part(0, cut), human.part(cut)
        if len(human) < config.held_back + 2:
            raise DataError(
                f"{len(human)} human pairs are too few: {config.held_back} are held back to place the filter's bar, "
                "and at least 2 must be left to learn from. Give more, or lower held_back."
            )
        cut = len(human) - config.held_back
        self.note("data", seconds=time.monotonic() - began, human=cut)
        return human.part(0, cut), human.part(cut), web, test

    def _tokenizer(self) -> TextTokenizer:
        folder = self.out / "tokenizer"
        if not (folder / "tokenizer.json").is_file():
            texts = [t for c in (self.human, self.web) for ts in c.texts for t in ts]
            TextTokenizer.train(texts, self.config.vocabulary).save(folder)
        return TextTokenizer.load(folder)

    def table(self, variant: Variant) -> PairTable:
        """The training set of a variant."""
        human = self.human.table().repeated(self.config.human_times)
        web = self.web.table()
        if variant == "human":
            return human
        if variant == "noisy":
            return PairTable.joined((human, web))
        rows = self.ledger if variant in ("bootstrapped", "share", "repeated") else self._ledger_without(variant)
        chosen = [[t for t, keep in _texts(row) if keep] for row in rows]
        if variant == "captioner":
            chosen = [[t for t, _ in _texts(row)] for row in rows]
        kept = PairTable.of(self.web.pictures, chosen)
        if variant == "share":
            share = len(human) / (len(human) + len(kept))
            return PairTable.joined((human.repeated(share / (1 - share) * len(web) / len(human)), web))
        if variant == "repeated":
            whole = PairTable.joined((human, web))
            return whole.repeated((len(human) + len(kept)) / len(whole))
        return PairTable.joined((human, kept))

    def _ledger_without(self, variant: Variant) -> list[Row]:
        return self.ledger if variant == "captioner" else [dataclasses.replace(r, text_synthetic=None) for r in self.ledger]

    # ---- training -----------------------------------------------------------------------------------------------

    def model(self, variant: Variant) -> Blip:
        """Trained from scratch on a variant's set: same first weights, same number of steps."""
        if variant not in self._made:
            torch.manual_seed(derive(self.config.seed, "init"))
            special = dataclasses.replace(
                self.config.model.special,
                pad=self.tokenizer.pad_id,
                cls=self.tokenizer.cls_id,
                sep=self.tokenizer.sep_id,
                dec=self.tokenizer.dec_id,
                enc=self.tokenizer.enc_id,
            )
            text = dataclasses.replace(self.config.model.text, vocab=len(self.tokenizer))
            blip = Blip(dataclasses.replace(self.config.model, special=special, text=text)).init_weights()
            stage = f"models/{variant}"
            self._fit(blip, self.table(variant), self.config.objective, self.config.pretrain, stage)
            self._made[variant] = blip
        return self._made[variant]

    @property
    def filter(self) -> Blip:
        """M0 fine-tuned to compare and match, on human pairs (and, as options, unmatched texts of other kinds)."""
        if "filter" not in self._made:
            tied, objective = self.config.tied, self.config.filter_objective
            if tied:
                objective = dataclasses.replace(objective, losses=("itc", "itm", "lm"))
            blip = respecialised(self.model("noisy"), roles=("read", "look", *(("speak",) if tied else ())))
            pool = tuple(t for ts in self.web.texts for t in ts) if self.config.pool else ()
            unmatched = Unmatched(self.config.pool, self.config.near, pool)
            self._fit(blip, self.human.table(), objective, self.config.filter, "cleaners/filter", unmatched)
            self._made["filter"] = blip
        return self._made["filter"]

    @property
    def captioner(self) -> Blip:
        """M0 fine-tuned to speak, on human pairs (and, as an option, web texts that the filter lets through)."""
        if self.config.tied:
            return self.filter
        if "captioner" not in self._made:
            table = self.human.table()
            if self.config.captioner_learns == "kept":
                limit = bar(self.config.captioner_rule, *self._bar_scores())
                kept = [[t] if s["score"] >= limit else [] for (t, *_), s in zip(self.web.texts, self.web_scores, strict=True)]
                table = PairTable.joined((table, PairTable.of(self.web.pictures, kept))) if any(kept) else table
            blip = respecialised(self.model("noisy"), roles=("speak",), queue=0)
            self._fit(blip, table, self.config.captioner_objective, self.config.captioner, "cleaners/captioner")
            self._made["captioner"] = blip
        return self._made["captioner"]

    def _fit(
        self,
        blip: Blip,
        table: PairTable,
        objective: Objective,
        training: TrainConfig,
        stage: str,
        unmatched: Unmatched | None = None,
    ) -> None:
        batches = Batches(
            table,
            self.tokenizer,
            training.batch,
            derive(self.config.seed, training.seed, stage.partition("/")[0]),
            self.config.model.vit.px,
            self.config.max_length,
            self.config.augmentation,
            unmatched,
        )
        done = fit(blip, batches, objective, training, self.out / stage, stage.replace("/", ": "))
        self.note(stage, seconds=done["seconds"], rows=len(table))

    # ---- cleaning -----------------------------------------------------------------------------------------------

    @property
    def web_scores(self) -> list[dict[str, Any]]:
        """Probability of a match and cosine of every web text."""
        return self._sharded("score web texts", "clean/web", lambda a, b: self._score(a, b, [t[0] for t in self.web.texts[a:b]]))

    @property
    def synthetic(self) -> list[dict[str, Any]]:
        """One caption an image, seeded by its key."""

        def work(start: int, stop: int) -> list[dict[str, Any]]:
            seeds = [derive(self.config.seed, "caption", key) for key in self.web.keys[start:stop]]
            speaker = Predictor(self.captioner, self.tokenizer)
            captions = speaker.caption(self._at_px(start, stop), seeds, self.config.decoding)
            return [{"text": c.text, "score": c.score} for c in captions]

        return self._sharded("write captions", "clean/captions", work)

    @property
    def synthetic_scores(self) -> list[dict[str, Any]]:
        """Probability of a match and cosine of every synthetic text."""
        texts = [row["text"] for row in self.synthetic]
        return self._sharded("score captions", "clean/synthetic", lambda a, b: self._score(a, b, texts[a:b]))

    @property
    def held_back_scores(self) -> list[dict[str, Any]]:
        """Probability of a match of human pairs that no model learned from."""
        if "held_back" not in self._made:
            predictor = Predictor(self.filter, self.tokenizer)
            texts = [ts[:1] for ts in self.held_back.texts]
            scores = predictor.match(at_px(np.asarray(self.held_back.pictures), self.config.model.vit.px), texts) if texts else []
            self._made["held_back"] = [{"score": s[0][0]} for s in scores]
        return self._made["held_back"]

    @property
    def ledger(self) -> list[Row]:
        """One row a web pair: both texts, both scores, the decision and why. Written to `ledger.jsonl`."""
        if "ledger" not in self._made:
            config = self.config
            threshold = bar(config.rule, *self._bar_scores())
            rows = list(self.web.failed)
            kinds = self.web.kinds or (None,) * len(self.web)
            parts = zip(self.web.keys, self.web.texts, self.web_scores, self.synthetic, self.synthetic_scores, kinds, strict=True)
            good = [
                Row(key, "kept", "", t[0], s["text"], w["score"], sw["score"], w["itc"], sw["itc"], kind=kind)
                for key, t, w, s, sw, kind in parts
            ]
            decided = [decide(row, threshold, config.rule) for row in good]
            write_jsonl(self.out / "ledger.jsonl", [vars(row) for row in (*decided, *rows)])
            self.note("ledger", threshold=threshold, counts=counts([*decided, *rows]))
            self._made["ledger"] = decided
        return self._made["ledger"]

    def _bar_scores(self) -> tuple[list[float], list[float]]:
        return [r["score"] for r in self.web_scores], [r["score"] for r in self.held_back_scores]

    def _score(self, start: int, stop: int, texts: list[str]) -> list[dict[str, Any]]:
        predictor = Predictor(self.filter, self.tokenizer)
        found = predictor.match(self._at_px(start, stop), [[t] for t in texts])
        return [{"score": s[0][0], "itc": s[0][1]} for s in found]

    def _sharded(self, stage: str, folder: str, work) -> list[dict[str, Any]]:
        if folder not in self._made:
            began = time.monotonic()
            about = {"config": to_dict(self.config)}
            self._made[folder] = in_shards(self.out / folder, stage, len(self.web), work, about)
            self.note(folder, seconds=time.monotonic() - began)
        return self._made[folder]

    def _at_px(self, start: int, stop: int):
        return at_px(np.asarray(self.web.pictures[start:stop]), self.config.model.vit.px)

    # ---- comparing ----------------------------------------------------------------------------------------------

    def evaluated(self, variant: Variant) -> dict[str, Any]:
        """What a variant's model reaches on the held-out clean pairs, with everything the intervals need."""
        path = self.out / "evaluated" / f"{variant}.json"
        if not path.is_file():
            model = self.model(variant)
            began = time.monotonic()
            found = evaluate(Predictor(model, self.tokenizer), self.test, self.config.captions, self.config.rerank)
            write_json(path, dataclasses.asdict(found))
            self.note(f"evaluated/{variant}", seconds=time.monotonic() - began)
        return read_json(path)

    def note(self, stage: str, **facts: Any) -> None:
        """Remembers facts of a stage in `stages.json`; a stage that was only found again keeps its first ones."""
        path = self.out / "stages.json"
        stages = read_json(path) if path.is_file() else {}
        stages[stage] = {**facts, **stages.get(stage, {})} if stage != "whole" else facts
        write_json(path, stages)


def _texts(row: Row) -> list[tuple[str, bool]]:
    pairs = ((row.text_web, row.keep_web), (row.text_synthetic, row.keep_synthetic))
    return [(text, keep) for text, keep in pairs if text]


def _write(out: Path) -> Report:
    report = tell(out)
    write_report(out, report)
    write_json(out / "results.json", results_json(report))
    return report
