"""The loop: it goes on exactly where it was stopped, however it was stopped, and two processes are one."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch

from capfilt.data.table import Batches, Feeding, PairTable
from capfilt.errors import ConfigError, StorageError, WeightsError
from capfilt.files import read_jsonl
from capfilt.inputs.tokenizer import TextTokenizer
from capfilt.models.blip import PRESETS, Blip, Objective
from capfilt.runtime import Terminated
from capfilt.train import loop
from capfilt.train.loop import NotFinite, TrainConfig, fit
from capfilt.train.schedule import Schedule
from capfilt.weights import store

TEXTS = [f"a {colour} {shape}" for colour in ("red", "blue", "green") for shape in ("ball", "big box", "star")]
QUICK = TrainConfig(steps=6, batch=4, schedule=Schedule(rate=1e-3, warmup=2), log_every=1, checkpoint_s=0.0, clip=1.0)


def setting(dropout: float = 0.1, size: int = 4):
    tokenizer = TextTokenizer.train(TEXTS, 50)
    pixels = np.random.default_rng(0).integers(0, 256, (9, 32, 32, 3), np.uint8)
    batches = Batches(PairTable.of(pixels, [[t] for t in TEXTS]), tokenizer, Feeding(size, seed=0, px=32))
    tiny = PRESETS["tiny"]
    config = dataclasses.replace(tiny, text=dataclasses.replace(tiny.text, dropout=dropout)).with_words(tokenizer)
    torch.manual_seed(0)
    return Blip(config).init_weights(), batches


def curve(out: Path) -> list[tuple]:
    return [tuple(row[k] for k in ("step", "itc", "itm", "lm", "rate")) for row in read_jsonl(out / "metrics.jsonl")]


def run(out: Path, config: TrainConfig = QUICK, **changes) -> dict[str, torch.Tensor]:
    model, batches = setting()
    fit(model, batches, Objective(), dataclasses.replace(config, **changes), out, "test")
    return {k: v.clone() for k, v in model.state_dict().items()}


COMPILED = """
    import dataclasses, pathlib, sys
    sys.path.insert(0, {here!r})
    import test_loop as t
    model, batches = t.setting(dropout=0.0, size=2)
    config = dataclasses.replace(t.QUICK, batch=2, compile=True)
    t.fit(model, batches, t.Objective(), config, pathlib.Path({out!r}), "test")
"""


@pytest.mark.slow  # the compiler takes its minutes
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler here")
def test_a_compiled_step_is_the_same_work(tmp_path):
    """In a process of its own: the checks of shapes that tests switch on are not for the compiler."""
    model, batches = setting(dropout=0.0, size=2)
    assert len({batches[step].ids.shape for step in range(6)}) > 1, "texts of several lengths"
    fit(model, batches, Objective(), dataclasses.replace(QUICK, batch=2), tmp_path / "eager", "test")
    code = textwrap.dedent(COMPILED.format(here=str(Path(__file__).parent), out=str(tmp_path / "compiled")))
    subprocess.run([sys.executable, "-c", code], check=True)
    curves = [np.array(curve(tmp_path / name)) for name in ("eager", "compiled")]
    np.testing.assert_allclose(curves[0], curves[1], rtol=1e-4)


@pytest.mark.parametrize("stop_at", [1, 3, 5])
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_stopped_and_resumed_is_bit_for_bit_the_same(tmp_path, monkeypatch, stop_at, how):
    whole = run(tmp_path / "whole")
    original = loop._Run.train_step

    def stopping(self, batch):
        values = original(self, batch)
        if self.step == stop_at:
            os.kill(os.getpid(), how)
        return values

    monkeypatch.setattr(loop._Run, "train_step", stopping)
    with pytest.raises((Terminated, KeyboardInterrupt)):
        run(tmp_path / "parts")
    monkeypatch.setattr(loop._Run, "train_step", original)
    parts = run(tmp_path / "parts")
    assert all(torch.equal(whole[k], parts[k]) for k in whole)
    assert curve(tmp_path / "whole") == curve(tmp_path / "parts")


def test_killed_outright_and_resumed_is_the_same(tmp_path):
    whole = run(tmp_path / "whole")
    code = f"""
        import os, sys, pathlib
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        import test_loop as t
        original = t.loop._Run.train_step
        def dying(self, batch):
            values = original(self, batch)
            if self.step == 4:
                os.kill(os.getpid(), 9)
            return values
        t.loop._Run.train_step = dying
        t.torch.set_num_threads({torch.get_num_threads()})
        t.run(pathlib.Path({str(tmp_path / "parts")!r}))
    """
    died = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=False)
    assert died.returncode == -signal.SIGKILL
    assert (tmp_path / "parts" / "checkpoint.safetensors").is_file()
    parts = run(tmp_path / "parts")
    assert all(torch.equal(whole[k], parts[k]) for k in whole)
    assert curve(tmp_path / "whole") == curve(tmp_path / "parts")


def test_a_finished_run_is_only_loaded(tmp_path, monkeypatch):
    whole = run(tmp_path)
    monkeypatch.setattr(loop._Run, "train_step", None)
    again = run(tmp_path)
    assert all(torch.equal(whole[k], again[k]) for k in whole)
    assert not (tmp_path / "checkpoint.safetensors").exists()
    model, tokenizer = store.load(tmp_path)
    assert all(torch.equal(whole[k], v) for k, v in model.state_dict().items())
    assert len(tokenizer) == model.config.text.vocab


def test_another_config_is_refused(tmp_path, monkeypatch):
    run(tmp_path / "done")
    with pytest.raises(ConfigError, match="finished run of other settings"):
        run(tmp_path / "done", steps=7)
    monkeypatch.setattr(loop._Run, "finish", lambda *_: {})
    run(tmp_path / "under way")
    with pytest.raises(WeightsError, match="other settings or data"):
        run(tmp_path / "under way", seed=1)


def test_runs_from_before_other_tasks_came_are_still_known(tmp_path):
    """A checkpoint is taken up only under the fingerprint that it was made with."""
    run(tmp_path, steps=1)
    assert json.loads((tmp_path / "done.json").read_text())["fingerprint"] == "fae70581c879"


def test_how_often_it_saves_or_loads_does_not_matter(tmp_path):
    once = run(tmp_path / "a")
    other = run(tmp_path / "b", checkpoint_s=1e9, log_every=5, workers=1)
    assert all(torch.equal(once[k], other[k]) for k in once)


def test_accumulated_halves_are_one_batch(tmp_path):
    """Two batches of 2 ask of the language loss what one of 4 does: ITC and ITM differ, they compare within a batch."""
    moved = []
    for size, times in ((4, 1), (2, 2)):
        model, batches = setting(dropout=0.0, size=size)
        config = dataclasses.replace(QUICK, steps=1, batch=size, accumulate=times, betas=(0.0, 0.0), clip=None)
        fit(model, batches, Objective(losses=("lm",)), config, tmp_path / str(times), "test")
        moved.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    agree = ((moved[0] - moved[1]).abs() < 1e-6).float().mean()  # AdamW's first step is the gradient's sign
    assert agree > 0.97
    assert [row["step"] for row in read_jsonl(tmp_path / "2" / "metrics.jsonl")] == [1]


def test_micro_batches_are_one_batch(tmp_path):
    """The whole run, twins and queues included, hangs on how many pairs a step has, not on how they are cut."""
    runs = {}
    for size, times in ((8, 1), (4, 2)):
        model, batches = setting(dropout=0.0, size=size)
        config = dataclasses.replace(QUICK, steps=4, batch=size, accumulate=times)
        fit(model, batches, Objective(), config, tmp_path / str(times), "test")
        runs[times] = model.state_dict()
    np.testing.assert_allclose(curve(tmp_path / "1"), curve(tmp_path / "2"), atol=1e-4)
    assert all(torch.allclose(x.float(), runs[2][name].float(), atol=1e-3) for name, x in runs[1].items())
    assert int(runs[2]["twins.pointer"]) == 0 and runs[2]["twins.id_queue"].min() >= 0


def test_without_exactness_each_micro_batch_stands_alone(tmp_path):
    exact, apart = (run(tmp_path / str(e), steps=2, accumulate=2, accumulate_exact=e) for e in (True, False))
    assert any(not torch.equal(exact[name], x) for name, x in apart.items())
    with pytest.raises(ConfigError, match="finished run of other settings"):
        run(tmp_path / "True", steps=2, accumulate=2, accumulate_exact=False)


def test_each_line_tells_the_speed_since_the_last(tmp_path):
    run(tmp_path, log_every=2)
    rows = read_jsonl(tmp_path / "metrics.jsonl")
    assert [row["step"] for row in rows] == [2, 4, 6]
    assert all(row["pairs_per_s"] > 0 and row["pairs_per_s_overall"] > 0 and 0 < row["mfu"] < 1 for row in rows)


def test_batches_are_made_ahead_where_a_gpu_waits_for_them(monkeypatch):
    monkeypatch.setattr(loop, "usable_cores", lambda: 12)
    assert loop._workers(torch.device("cpu")) == 0
    assert loop._workers(torch.device("cuda")) == 8
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert loop._workers(torch.device("cuda")) == 2
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "16")
    assert loop._workers(torch.device("cuda")) == 1


def test_stopped_amid_accumulation_saves_the_next_whole_step(tmp_path, monkeypatch):
    whole = run(tmp_path / "whole", steps=3, accumulate=2)
    original, micro = loop._Run.train_step, []

    def stopping(self, batch):
        micro.append(None)
        values = original(self, batch)
        if len(micro) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return values

    monkeypatch.setattr(loop._Run, "train_step", stopping)
    with pytest.raises(Terminated):
        run(tmp_path / "parts", steps=3, accumulate=2, checkpoint_s=1e9)
    assert len(micro) == 4
    parts = run(tmp_path / "parts", steps=3, accumulate=2)
    assert len(micro) == 6
    assert all(torch.equal(whole[k], parts[k]) for k in whole)


def test_a_loss_that_is_not_finite_stops_with_one_line(tmp_path):
    model, batches = setting()
    with torch.no_grad():
        model.match_head.bias.fill_(float("nan"))
    with pytest.raises(NotFinite, match="step 1: a loss is not finite"):
        fit(model, batches, Objective(), QUICK, tmp_path, "test")


def test_weights_that_ran_away_are_never_saved(tmp_path, monkeypatch):
    original = loop._Run.train_step

    def running_away(self, batch):
        values = original(self, batch)
        if self.step == 3:
            with torch.no_grad():
                self.model.match_head.bias.fill_(float("nan"))
        return values

    monkeypatch.setattr(loop._Run, "train_step", running_away)
    with pytest.raises(NotFinite, match="step 3: a weight is not finite"):
        run(tmp_path, log_every=100)
    monkeypatch.undo()
    whole, rest = run(tmp_path / "whole"), run(tmp_path)
    assert all(torch.equal(whole[k], rest[k]) for k in whole)


@pytest.mark.parametrize(
    "setting",
    [
        *({"batch": 1}, {"steps": 0}, {"accumulate": 0}, {"log_every": 0}, {"betas": (0.9,)}, {"workers": -1}),
        *({"compile": True, "shard": True}, {"compile": True, "accumulate": 2}),
    ],
)
def test_settings_that_cannot_be(setting):
    with pytest.raises(ConfigError, match=next(iter(setting))):
        dataclasses.replace(QUICK, **setting)


def test_a_full_disk_is_one_clear_error(tmp_path, monkeypatch):
    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store, "save_file", full)
    with pytest.raises(StorageError, match="No space left on device"):
        run(tmp_path)
    monkeypatch.undo()
    assert json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[0])["step"] == 1
    run(tmp_path)


def test_bf16_trains_with_full_precision_losses(tmp_path):
    run(tmp_path, precision="bf16")
    assert len(curve(tmp_path)) == 6


PAIR = """
    import os, sys, pathlib, torch
    sys.path.insert(0, {here!r})
    import capfilt.ranks
    import test_loop as t
    from capfilt.ranks import from_environment
    torch.set_num_threads(1)
    capfilt.ranks.MESSAGE = 20_000  # bytes: gradients go in several messages
    ranks = from_environment()
    model, batches = t.setting(dropout=0.0)
    t.fit(model, batches, t.Objective(), t.QUICK, pathlib.Path({out!r}), "test", ranks)
    torch.distributed.destroy_process_group()
"""


def test_two_processes_have_the_curve_of_one(tmp_path):
    model, batches = setting(dropout=0.0)
    fit(model, batches, Objective(), QUICK, tmp_path / "one", "test")
    code = textwrap.dedent(PAIR.format(here=str(Path(__file__).parent), out=str(tmp_path / "two")))
    with_two = dict(os.environ, WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(20000 + os.getpid() % 20000))
    both = [subprocess.Popen([sys.executable, "-c", code], env=dict(with_two, RANK=str(r))) for r in range(2)]
    assert [p.wait(timeout=120) for p in both] == [0, 0]
    one, two = np.array(curve(tmp_path / "one")), np.array(curve(tmp_path / "two"))
    assert np.abs(one - two).max() < 2e-4
    weights = [store.load(tmp_path / name)[0].state_dict() for name in ("one", "two")]
    assert max((weights[0][k].float() - weights[1][k].float()).abs().max().item() for k in weights[0]) < 2e-3
