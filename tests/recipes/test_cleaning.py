"""`clean` from a folder to decisions: every row accounted for, whatever happens on the way."""

import contextlib
import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from capfilt.clean import deciding, rules, stages
from capfilt.clean.config import CleanConfig
from capfilt.clean.ledger import Ledger
from capfilt.clean.policies import Policy
from capfilt.clean.stages import Models
from capfilt.errors import BusyError, ChangedError, DataError, FailRateError, NothingToRead
from capfilt.files import lease, read_json
from capfilt.inputs.tokenizer import TextTokenizer
from capfilt.models.blip import PRESETS, Blip
from capfilt.predict.decode import Decoding
from capfilt.recipes import cleaning
from capfilt.weights.store import save_as

TEXTS = ["a red cube", "a small blue ball on a green box", "two cones", "the ball behind a cone", "buy now"]
WAY = Decoding(method="nucleus", max_length=12, min_length=2)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny Blip of all roles, with large random weights."""
    words = TextTokenizer.train(TEXTS, 64)
    blip = Blip(dataclasses.replace(PRESETS["tiny"].with_words(words), queue=0))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in blip.parameters():
            if p.ndim:
                p.normal_(0, 0.25, generator=generator)
    folder = tmp_path_factory.mktemp("model") / "tiny"
    save_as(blip, words, folder, "capfilt")
    return str(folder)


def photos(folder: Path, count: int = 12, broken: tuple[int, ...] = ()) -> Path:
    """Noise in JPEG, every third without a text; the broken ones are cut short."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        path = folder / f"{i:03d}.jpg"
        noise = np.random.default_rng(i).integers(0, 256, (64 + i, 80, 3), np.uint8)
        Image.fromarray(noise).save(path)
        if i in broken:
            path.write_bytes(path.read_bytes()[:200])
        if i % 3:
            path.with_suffix(".txt").write_text(TEXTS[i % len(TEXTS)])
    return folder


def config(source: Path, model: str, **changes) -> CleanConfig:
    models = Models(model, model, n=2, decoding=WAY, precision="fp32", engine="torch")
    return CleanConfig(source=str(source), models=models, shard_rows=5, workers=0, **changes)


def contents(out: Path) -> dict[str, bytes]:
    """All that must not hang on how a run went."""
    kinds = ("rows/*", "scores/*", "flags.parquet", "decisions.parquet")
    return {str(p.relative_to(out)): p.read_bytes() for kind in kinds for p in sorted(out.glob(kind))}


def test_a_folder_is_cleaned_and_no_row_is_lost(tmp_path, model):
    source = photos(tmp_path / "in", broken=(4, 9))
    counts = cleaning.clean(config(source, model), tmp_path / "out")
    assert counts["in"] == 12 and counts["failed"] == 2
    assert counts["in"] == sum(counts[name] for name in ("kept", "replaced", "dropped", "failed"))
    ledger = Ledger(tmp_path / "out")
    keys = [key for table in ledger.tables("rows", ["key"]) for key in table["key"].to_pylist()]
    assert keys == [f"{i:03d}.jpg" for i in range(12)]
    assert [len(table) for table in ledger.tables("scores")] == [5, 5, 2]
    for rows, scores in zip(ledger.tables("rows"), ledger.tables("scores"), strict=True):
        assert rows["id"].equals(scores["id"])
        for row, score in zip(rows.to_pylist(), scores.to_pylist(), strict=True):
            judged = row["failed"] is None
            assert len(score["itm_web"]) == (len(row["texts"]) if judged else 0)
            assert len(score["synthetic"]) == len(score["itc_synthetic"]) == (2 if judged else 0)
    assert (tmp_path / "out" / "report" / "index.html").is_file()
    assert deciding.status(tmp_path / "out") == {
        **{k: counts[k] for k in counts if k in WORDS},
        "done": True,
        "judged": 12,
    }


WORDS = ("in", "kept", "replaced", "dropped", "failed")


def test_scores_do_not_hang_on_shards(tmp_path, model):
    source = photos(tmp_path / "in")
    found = []
    for rows in (5, 12):
        out = tmp_path / f"out{rows}"
        cleaning.clean(dataclasses.replace(config(source, model), shard_rows=rows), out)
        found.append(pa.concat_tables(Ledger(out).tables("scores")).to_pylist())
    for one, other in zip(*found, strict=True):
        assert one["synthetic"] == other["synthetic"]
        for name in ("itm_web", "itm_synthetic", "itc_web", "itc_synthetic", "logp"):
            assert one[name] == pytest.approx(other[name], abs=2e-4)


class Dies(BaseException):
    """Nothing catches it, as nothing does a kill."""


@contextlib.contextmanager
def dying(calls: int):
    """The so-manieth commit is the run's last breath."""
    commit, left = Ledger.commit, iter([*[False] * (calls - 1), True])

    def dies(self, *what):
        if next(left):
            raise Dies
        commit(self, *what)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Ledger, "commit", dies)
        yield


@pytest.mark.parametrize("calls", [1, 3, 4, 6])  # of three shards that are looked at, then judged
def test_what_was_begun_goes_on_to_the_same_bytes(tmp_path, model, calls):
    source = photos(tmp_path / "in", broken=(4,))
    cleaning.clean(config(source, model), tmp_path / "whole")
    with dying(calls), pytest.raises(Dies):
        cleaning.clean(config(source, model), tmp_path / "out")
    assert not deciding.status(tmp_path / "out")["done"]
    cleaning.clean(config(source, model), tmp_path / "out")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_what_is_done_is_not_done_again(tmp_path, model, monkeypatch):
    source = photos(tmp_path / "in")
    first = cleaning.clean(config(source, model), tmp_path / "out")
    monkeypatch.setattr(stages.Scan, "open", pytest.fail)
    monkeypatch.setattr(stages.Score, "open", pytest.fail)
    assert cleaning.clean(config(source, model), tmp_path / "out") == first
    assert cleaning.clean(config(source, model), tmp_path / "out", Policy("keep-web"))["replaced"] == 0


def test_another_run_is_refused_with_what_differs(tmp_path, model):
    source = photos(tmp_path / "in", 4)
    cleaning.clean(config(source, model), tmp_path / "out")
    with pytest.raises(ChangedError, match=r"rules\.min_px: \d+ → 70"):
        cleaning.clean(config(source, model, rules=rules.Rules(min_px=70)), tmp_path / "out")
    photos(tmp_path / "in", 5)
    with pytest.raises(ChangedError, match="changed since"):
        cleaning.clean(config(source, model), tmp_path / "out")


def test_other_weights_under_the_same_name_are_refused(tmp_path, model, monkeypatch):
    source = photos(tmp_path / "in", 7)
    with dying(4), pytest.raises(Dies):
        cleaning.clean(config(source, model), tmp_path / "out")
    monkeypatch.setattr(stages, "_digest", lambda model: "other")
    with pytest.raises(ChangedError, match="other weights"):
        cleaning.clean(config(source, model), tmp_path / "out")


def test_a_shard_that_was_spoilt_is_made_again(tmp_path, model):
    source = photos(tmp_path / "in")
    cleaning.clean(config(source, model), tmp_path / "out")
    before = contents(tmp_path / "out")
    (tmp_path / "out/scores/00001.parquet").write_bytes(b"PAR1")
    (tmp_path / "out/rows/00002.parquet").unlink()
    with pytest.warns(UserWarning, match="made again"):
        cleaning.clean(config(source, model), tmp_path / "out")
    assert contents(tmp_path / "out") == before


def test_parts_share_a_folder_and_a_whole_run_decides(tmp_path, model):
    source = photos(tmp_path / "in")
    cleaning.clean(config(source, model), tmp_path / "whole")
    for number in (4, 2, 3, 1):  # there are three shards: the fourth part has nothing to do
        found = cleaning.clean(config(source, model), tmp_path / "out", part=cleaning.Part(number, 4))
        assert not found["done"]
    assert len(list((tmp_path / "out").glob("manifest-*.jsonl"))) == 3
    cleaning.clean(config(source, model), tmp_path / "out")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_a_live_run_keeps_others_out(tmp_path, model):
    source = photos(tmp_path / "in", 2)
    with lease(tmp_path / "out"), pytest.raises(BusyError):
        cleaning.clean(config(source, model), tmp_path / "out", part=cleaning.Part(1, 2))


def test_too_many_failures_stop_before_the_models(tmp_path, model, monkeypatch):
    source = photos(tmp_path / "in", 10, broken=(1, 2, 3))
    monkeypatch.setattr(stages.Score, "open", pytest.fail)
    with pytest.raises(FailRateError, match="3 of 10"):
        cleaning.clean(config(source, model), tmp_path / "out", max_fail_rate=0.2)


def test_nothing_to_read(tmp_path, model):
    with pytest.raises(NothingToRead, match="none of 2 rows"):
        cleaning.clean(config(photos(tmp_path / "in", 2, broken=(0, 1)), model), tmp_path / "out")


def test_failed_rows_are_tried_again(tmp_path, model):
    source = photos(tmp_path / "in", broken=(4, 9))
    cleaning.clean(config(source, model), tmp_path / "out")
    state = {path: path.stat() for path in source.iterdir()}
    photos(tmp_path / "in")
    found = cleaning.retry(tmp_path / "out")
    assert (found["mended"], found["failed"], found["in"]) == (2, 0, 12)
    assert cleaning.retry(tmp_path / "out")["mended"] == 0
    assert state  # the source has changed, which a new run would refuse; a retry is asked for it
    cleaning.clean(config(photos(tmp_path / "again"), model), tmp_path / "fresh")
    ours, fresh = (pa.concat_tables(Ledger(tmp_path / name).tables("scores")).to_pylist() for name in ("out", "fresh"))
    for one, other in zip(ours, fresh, strict=True):
        assert one["synthetic"] == other["synthetic"] and one["itm_web"] == pytest.approx(other["itm_web"], abs=2e-4)


def test_texts_far_from_the_image_are_not_looked_at(tmp_path, model):
    whole = config(photos(tmp_path / "in"), model)
    cleaning.clean(whole, tmp_path / "all")
    everything = pa.concat_tables(Ledger(tmp_path / "all").tables("scores")).to_pylist()
    cosines = sorted({itc for row in everything for itc in row["itc_web"]})
    least = (cosines[len(cosines) // 2 - 1] + cosines[len(cosines) // 2]) / 2
    models = dataclasses.replace(whole.models, itc_least=least)
    cleaning.clean(dataclasses.replace(whole, models=models), tmp_path / "near")
    near = pa.concat_tables(Ledger(tmp_path / "near").tables("scores")).to_pylist()
    skipped = 0
    for one, other in zip(everything, near, strict=True):
        assert one["itc_web"] == pytest.approx(other["itc_web"], abs=2e-4)
        for itc, full, less in zip(one["itc_web"], one["itm_web"], other["itm_web"], strict=True):
            skipped += np.isnan(less)
            assert np.isnan(less) if itc < least else less == pytest.approx(full, abs=2e-4)
    assert skipped


def test_where_memory_is_short_fewer_rows_go_together(tmp_path, model, monkeypatch):
    source = photos(tmp_path / "in")
    cleaning.clean(config(source, model), tmp_path / "whole")
    worker = stages.Score(config(source, model).models, workers=0).open()
    call, sizes = type(worker.capfilt).__call__, []

    def short(self, *asked):
        sizes.append(self.judge.batch)
        if self.judge.batch > 4:
            raise torch.OutOfMemoryError
        return call(self, *asked)

    monkeypatch.setattr(type(worker.capfilt), "__call__", short)
    cleaning.clean(config(source, model), tmp_path / "out")
    assert sizes[:2] == [256, 128] and sizes[-1] == 4
    one, other = ([t.to_pylist() for t in Ledger(tmp_path / n).tables("scores")] for n in ("whole", "out"))
    assert [[r["synthetic"] for r in t] for t in one] == [[r["synthetic"] for r in t] for t in other]
    worker.close()


def test_run_json_says_how_it_was_made(tmp_path, model):
    cleaning.clean(config(photos(tmp_path / "in", 3), model), tmp_path / "out")
    assert cleaning.load_config(tmp_path / "out").outcome() == config(tmp_path / "in", model).outcome()
    assert read_json(tmp_path / "out" / "models.json")["precision"] == "fp32"
    assert json.loads((tmp_path / "out" / "decisions.json").read_text())["policy"]["name"] == "blip"
    assert not [name for name in os.listdir(tmp_path / "out") if name.endswith(".tmp")]


def test_scorers_write_a_column_that_policies_may_heed(tmp_path, model):
    whole = config(photos(tmp_path / "in", 6), model)
    models = dataclasses.replace(whole.models, scorers=("cube=a red cube|two cones",))
    cleaning.clean(dataclasses.replace(whole, models=models), tmp_path / "out")
    said = [
        json.loads(text)["cube"]
        for table in Ledger(tmp_path / "out").tables("scores")
        for text in table["extra"].to_pylist()
    ]
    assert len(said) == 6 and all(0 <= share <= 1 for share in said)
    limit = sorted(said)[2]
    counts = deciding.decide(tmp_path / "out", Policy(threshold=0.0, drop=(f"cube>{limit}",)))[0]
    assert counts["dropped"] == sum(share > limit for share in said) > 0


def test_a_name_that_is_not_there_begins_no_run(tmp_path, model):
    with pytest.raises(DataError, match="no such file"):
        cleaning.clean(config(tmp_path / "nothing", model), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_run_gone_on_opens_its_models_as_the_first_process_did(model):
    """What `auto` comes to is opened anew as what it is: `auto` itself may lay numbers out otherwise."""
    models = dataclasses.replace(Models(model, model), engine="torch")
    settled = models.settled()
    assert settled.precision == "fp32" and models.load(model) is not settled.load(model)
