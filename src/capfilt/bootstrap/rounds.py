"""The cycle: train on noisy pairs, fine-tune a captioner and a filter, clean, train again, compare, tell.

    noisy ─► M0 ─┬─► captioner ─► synthetic texts ─┐
                 └─► filter ─────► scores ─────────┴─► ledger ─► cleaner set ─► M1 ─► M0 against M1

Every stage lives in its own folder of the run and is found again when the same command runs again. Under `torchrun` all
ranks walk through the same stages: they train together and share the rows to be cleaned; the first one reads the data,
evaluates and writes.
"""

import contextlib
import dataclasses
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from capfilt.bootstrap.config import BootstrapConfig, Variant
from capfilt.bootstrap.tell import is_told, tell
from capfilt.bootstrap.truth import keep_truth
from capfilt.clean.decide import Rule, bar, counts, decide, joint_score
from capfilt.clean.shards import Rows, in_shards, to_do
from capfilt.config import from_dict, to_dict
from capfilt.data.collection import Collection, from_source, from_world
from capfilt.data.table import Batches, Feeding, PairTable, Unmatched
from capfilt.data.world import World
from capfilt.errors import ConfigError, DataError
from capfilt.evaluate.model import at_px, evaluate
from capfilt.files import lease, read_json, write_json, write_jsonl
from capfilt.inputs.tokenizer import TextTokenizer
from capfilt.models.blip import Blip, Objective, respecialised
from capfilt.pair import Row
from capfilt.predict.predictor import Predictor
from capfilt.ranks import ALONE, Ranks
from capfilt.report import Report, results_json, write_report
from capfilt.runtime import derive, machine, peak_mib, rng, sigterm_raises
from capfilt.train.loop import TrainConfig, fit


def bootstrap(
    config: BootstrapConfig, out: Path, variants: Iterable[Variant] = ("noisy", "bootstrapped"), ranks: Ranks = ALONE
) -> Report:
    """Runs the cycle into `out` and returns its report; what is done already is not done again.

    variants: which training sets to compare; `noisy` and `bootstrapped` are always among them.
    """
    with _run_of(config, out, ranks) as config:
        wanted = tuple(dict.fromkeys(("noisy", "bootstrapped", *variants)))
        if not ranks.first(is_told(out, wanted)):
            cycle = Cycle(config, out, ranks)
            for variant in wanted:
                cycle.evaluated(variant)
            cycle.note("whole", peak_mib=peak_mib(), machine=machine())
            rows = cycle.ledger  # every rank has its share of it to make
            ranks.in_turn(lambda: keep_truth(cycle, rows))  # the last thing that is missing where a run is not told
        return ranks.in_turn(lambda: _write(out) if not ranks.rank else tell(out))


def rewrite_report(out: Path) -> Path:
    """Makes the page of a finished run anew from what the run left in its folder."""
    _write(out)
    return out / "report.html"


def pretrain(config: BootstrapConfig, out: Path, ranks: Ranks = ALONE) -> dict[str, Any]:
    """The first stage alone: one model on the noisy set, evaluated on the held-out pairs. Returns its scores."""
    with _run_of(config, out, ranks) as config:
        return Cycle(config, out, ranks).evaluated("noisy")["summary"]


@contextlib.contextmanager
def _run_of(config: BootstrapConfig, out: Path, ranks: Ranks) -> Iterator[BootstrapConfig]:
    """Holds the folder for a run of these settings, which have been checked; a run of others there is refused."""
    config = dataclasses.replace(config, sources=config.sources.absolute())
    config.check()
    about = out / "config.json"
    with lease(out) if not ranks.rank else contextlib.nullcontext(), sigterm_raises():
        if not ranks.rank and not about.is_file():
            write_json(about, to_dict(config))
        ranks.barrier()
        if from_dict(BootstrapConfig, read_json(about)).outcome() != config.outcome():
            raise ConfigError(f"{out}: holds a run with other settings. Use another --out, or delete the folder.")
        yield config


class Cycle:
    """The stages of one run, each made when it is first asked for."""

    def __init__(self, config: BootstrapConfig, out: Path, ranks: Ranks = ALONE):
        self.config, self.out, self.ranks = config, out, ranks
        self.human, self.held_back, self.web, self.test = ranks.in_turn(self._data)
        self.tokenizer = ranks.in_turn(self._tokenizer)
        self._made: dict[str, Any] = {}

    # ---- data ---------------------------------------------------------------------------------------------------

    def _data(self) -> tuple[Collection, Collection, Collection, Collection]:
        config, sources = self.config, self.config.sources
        began = time.monotonic()
        if sources.pairs is None:
            assert config.world is not None
            world = World(config.world)
            test: Collection | None
            human = from_world(world, "human", config.human + config.held_back)
            web, test = from_world(world, "web", config.web), from_world(world, "test", config.test)
        else:
            assert sources.human is not None
            px, data = sources.store_px, self.out / "data"

            def read(path: str, part: str) -> Collection:
                one_text, mix = part == "web", sources.mix if part == "web" else None
                return from_source(path, data / part, px, one_text, image=sources.image, text=sources.text, mix=mix)

            web, human = read(sources.pairs, "web"), read(sources.human, "human")
            test = read(sources.test, "test") if sources.test is not None else None
        held_out = max(2, len(human) // 10) if test is None else 0
        learnt = len(human) - held_out - config.held_back
        if learnt < 2:
            raise DataError(
                f"{len(human)} human pairs are too few: {config.held_back} are held back to place the filter's bar, "
                f"{held_out} to compare with, and at least 2 must be left to learn from. "
                "Give more, or --set held_back, or --test pairs of their own."
            )
        cut = learnt + config.held_back
        unread = {"human": _reasons(human), "test": _reasons(test) if test else {}}
        seconds, unread = time.monotonic() - began, {name: found for name, found in unread.items() if found}
        parts = {"human": human, "web": web, "test": test}
        notes = {name: part.notes for name, part in parts.items() if part is not None and part.notes}
        self.note("data", seconds=seconds, human=learnt, unread=unread, notes=notes)
        order = np.arange(len(human))
        if sources.pairs is not None:  # a folder or a table may be sorted by what is to be seen; drawn scenes are not
            order = rng(config.seed, "human").permutation(order)
        learn, held_back, rest = (human.only(part) for part in np.split(order, [learnt, cut]))
        return learn, held_back, web, test or rest

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
        rows = self._without_captioner() if variant == "filter" else self.ledger
        chosen = [[t for t, keep in _texts(row) if keep] for row in rows]
        if variant == "captioner":
            chosen = [[t for t, _ in _texts(row)] for row in rows]
        kept = sum(map(len, chosen))
        if variant == "repeated":
            whole = PairTable.joined((human, web))
            return whole.repeated((len(human) + kept) / len(whole))
        if not kept:  # no web image has a text that fits: what is clean is the human pairs
            return human
        if variant == "share":
            return PairTable.joined((human.repeated(len(web) / kept), web))
        return PairTable.joined((human, self.web.table(chosen)))

    def _without_captioner(self) -> list[Row]:
        config = self.config
        threshold = self._bar(config.rule, config.filter_rounds)
        alone = [dataclasses.replace(row, text_synthetic=None) for row in self.ledger]
        return [decide(row, threshold, config.rule) for row in alone]  # anew: `best` compares with the other text

    # ---- training -----------------------------------------------------------------------------------------------

    def model(self, variant: Variant) -> Blip:
        """Trained from scratch on a variant's set: same first weights, same number of steps."""
        stage = f"models/{variant}"
        if stage not in self._made:
            torch.manual_seed(derive(self.config.seed, "init"))
            blip = Blip(self.config.model.with_words(self.tokenizer)).init_weights()
            self._fit(blip, self.table(variant), self.config.objective, self.config.pretrain, stage)
            self._made[stage] = blip
        return self._made[stage]

    @property
    def filter(self) -> Blip:
        """M0 fine-tuned to compare and match; with several rounds, the last one's."""
        return self._filter(self.config.filter_rounds)

    def _filter(self, turn: int) -> Blip:
        """Round 1 starts from M0 and learns from the human pairs; each later one goes on from the one before it, and
        learns from the web texts that one lets through too. Unmatched texts of other kinds are options."""
        stage = self._stage("cleaners/filter", turn)
        if stage not in self._made:
            tied, objective = self.config.tied, self.config.filter_objective
            if tied:
                objective = dataclasses.replace(objective, losses=("itc", "itm", "lm"))
            before = self.model("noisy") if turn == 1 else self._filter(turn - 1)
            table = self.human.table() if turn == 1 else self._with_kept(turn - 1)
            blip = respecialised(before, roles=("read", "look", *(("speak",) if tied else ())))
            pool = tuple(t for ts in self.web.texts for t in ts) if self.config.pool else ()
            unmatched = Unmatched(self.config.pool, self.config.near, pool)
            self._fit(blip, table, objective, self.config.filter, stage, unmatched)
            self._made[stage] = blip
        return self._made[stage]

    @property
    def captioner(self) -> Blip:
        """M0 fine-tuned to speak, on human pairs (and, as an option, web texts that the filter lets through)."""
        if self.config.tied:
            return self.filter
        stage = "cleaners/captioner"
        if stage not in self._made:
            kept = self.config.captioner_learns == "kept"
            table = self._with_kept(self.config.filter_rounds) if kept else self.human.table()
            blip = respecialised(self.model("noisy"), roles=("speak",), queue=0)
            self._fit(blip, table, self.config.captioner_objective, self.config.captioner, stage)
            self._made[stage] = blip
        return self._made[stage]

    def _with_kept(self, turn: int) -> PairTable:
        """The human pairs and the web pairs that round `turn` of the filter lets through."""
        rule = self.config.learn_rule
        limit = self._bar(rule, turn)
        judged = zip(self.web.texts, _joint(self._web_scores(turn), rule), strict=True)
        kept = [[t] if score >= limit else [] for (t, *_), score in judged]
        human = self.human.table()
        return PairTable.joined((human, self.web.table(kept))) if any(kept) else human

    def _stage(self, name: str, turn: int) -> str:
        return name if turn == self.config.filter_rounds else f"{name}-{turn}"

    def _fit(
        self,
        blip: Blip,
        table: PairTable,
        objective: Objective,
        training: TrainConfig,
        stage: str,
        unmatched: Unmatched | None = None,
    ) -> None:
        config, seed = self.config, derive(self.config.seed, training.seed, stage.partition("/")[0])
        feeding = Feeding(training.batch, seed, config.model.vit.px, config.augmentation)
        batches = Batches(table, self.tokenizer, feeding, config.max_length, unmatched)
        done = fit(blip, batches, objective, training, self.out / stage, stage.replace("/", ": "), self.ranks)
        self.note(stage, seconds=done["seconds"], rows=len(table))

    # ---- cleaning -----------------------------------------------------------------------------------------------

    def _web_scores(self, turn: int) -> Rows:
        """Probability of a match and cosine of every web text, by round `turn` of the filter."""
        texts = [texts[0] for texts in self.web.texts]
        return self._scored("score web texts", self._stage("clean/web", turn), texts, turn)

    @property
    def synthetic(self) -> list[dict[str, Any]]:
        """One caption an image, seeded by its key."""

        def work(speaker: Predictor, start: int, stop: int) -> Rows:
            seeds = [derive(self.config.seed, "caption", key) for key in self.web.keys[start:stop]]
            captions = speaker.caption(self._at_px(start, stop), seeds, self.config.decoding)
            return [{"text": c.text, "score": c.score} for c in captions]

        return self._sharded("write captions", "clean/captions", lambda: self.captioner, work)

    @property
    def synthetic_scores(self) -> list[dict[str, Any]]:
        """Probability of a match and cosine of every synthetic text."""
        texts = [row["text"] for row in self.synthetic]
        return self._scored("score captions", "clean/synthetic", texts, self.config.filter_rounds)

    def _bar(self, rule: Rule, turn: int) -> float:
        """Where `rule` puts the bar for round `turn` of the filter, by human pairs that no model learned from."""
        key = f"held back {turn}"
        if key not in self._made:
            predictor = self._predictor(self._filter(turn))
            texts = [ts[:1] for ts in self.held_back.texts]
            px = self.config.model.vit.px
            scores = predictor.match(at_px(np.asarray(self.held_back.pictures), px), texts) if texts else []
            self._made[key] = [{"itm": s[0][0], "itc": s[0][1]} for s in scores]
        return bar(rule, _joint(self._web_scores(turn), rule), _joint(self._made[key], rule))

    @property
    def ledger(self) -> list[Row]:
        """One row a web pair: both texts, both scores, the decision and why. Written to `ledger.jsonl`."""
        if "ledger" not in self._made:
            config = self.config
            turn = config.filter_rounds
            threshold = self._bar(config.rule, turn)
            rows = list(self.web.failed)
            kinds = self.web.kinds or (None,) * len(self.web)
            judged, spoken = self._web_scores(turn), self.synthetic_scores
            texts = ([ts[0] for ts in self.web.texts], [row["text"] for row in self.synthetic])
            scores = (_joint(judged, config.rule), _joint(spoken, config.rule))
            itm, itc = ([[row[head] for row in part] for part in (judged, spoken)] for head in ("itm", "itc"))
            columns = zip(self.web.keys, *texts, *scores, *itm, *itc, kinds, strict=True)
            good = [dataclasses.replace(Row(key, "kept", "", *facts), kind=kind) for key, *facts, kind in columns]
            decided = [decide(row, threshold, config.rule) for row in good]
            if (
                not self.ranks.rank and not (self.out / "ledger.jsonl").is_file()
            ):  # same scores and settings, same ledger
                write_jsonl(self.out / "ledger.jsonl", [vars(row) for row in (*decided, *rows)])
            self.note("ledger", threshold=threshold, counts=counts([*decided, *rows]))
            self._made["ledger"] = decided
        return self._made["ledger"]

    def _scored(self, stage: str, folder: str, texts: list[str], turn: int) -> Rows:
        def work(judge: Predictor, start: int, stop: int) -> Rows:
            found = judge.match(self._at_px(start, stop), [[text] for text in texts[start:stop]])
            return [{"itm": s[0][0], "itc": s[0][1]} for s in found]

        return self._sharded(stage, folder, lambda: self._filter(turn), work)

    def _sharded(
        self, stage: str, folder: str, model: Callable[[], Blip], work: Callable[[Predictor, int, int], Rows]
    ) -> Rows:
        if folder not in self._made:
            out, total = self.out / folder, len(self.web)
            if self.ranks.first(to_do(out, total)):
                model()  # what has to be trained for it has a clock and a progress bar of its own
            began = time.monotonic()
            self._made[folder] = in_shards(
                out,
                stage,
                total,
                lambda start, stop: work(self._predictor(model()), start, stop),
                {"config": self.config.outcome()},
                ranks=self.ranks,
            )
            self.note(folder, seconds=time.monotonic() - began)
        return self._made[folder]

    def _predictor(self, model: Blip) -> Predictor:
        return Predictor(model, self.tokenizer, max_length=self.config.max_length)

    def _at_px(self, start: int, stop: int):
        return at_px(np.asarray(self.web.pictures[start:stop]), self.config.model.vit.px)

    # ---- comparing ----------------------------------------------------------------------------------------------

    def evaluated(self, variant: Variant) -> dict[str, Any]:
        """What a variant's model reaches on the held-out clean pairs, with everything the intervals need."""
        path = self.out / "evaluated" / f"{variant}.json"

        def work() -> dict[str, Any]:
            if not path.is_file():
                began = time.monotonic()
                predictor = self._predictor(self.model(variant))
                found = evaluate(predictor, self.test, self.config.captions, self.config.rerank)
                write_json(path, dataclasses.asdict(found))
                self.note(f"evaluated/{variant}", seconds=time.monotonic() - began)
            return read_json(path)

        if not self.ranks.first(path.is_file()):
            self.model(variant)
        return self.ranks.in_turn(work)

    def note(self, stage: str, **facts: Any) -> None:
        """Remembers facts of a stage in `stages.json`; a stage that was only found again keeps its first ones."""
        if self.ranks.rank:
            return
        path = self.out / "stages.json"
        stages = read_json(path) if path.is_file() else {}
        known = {**facts, **stages.get(stage, {})}
        if known != stages.get(stage):
            write_json(path, {**stages, stage: known})


def _joint(judged: Rows, rule: Rule) -> list[float]:
    return [joint_score(row["itm"], row["itc"], rule.itc) for row in judged]


def _reasons(collection: Collection) -> dict[str, int]:
    """Reason code → number of failed rows."""
    return dict(Counter(row.reason.partition(":")[0] for row in collection.failed).most_common())


def _texts(row: Row) -> list[tuple[str, bool]]:
    pairs = ((row.text_web, row.keep_web), (row.text_synthetic, row.keep_synthetic))
    return [(text, keep) for text, keep in pairs if text]


def _write(out: Path) -> Report:
    report = tell(out)
    write_report(out, report)
    write_json(out / "results.json", results_json(report))
    return report
