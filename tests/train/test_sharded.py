"""Two processes that each hold half of a model train as two that each hold all of it."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch

from capfilt.errors import ConfigError
from capfilt.files import read_jsonl
from capfilt.models.blip import PRESETS as BLIPS
from capfilt.models.blip import Blip
from capfilt.models.blip_nlvr import PRESETS as NLVRS
from capfilt.models.blip_nlvr import BlipNlvr
from capfilt.ranks import ALONE, Ranks
from capfilt.train.sharded import sharded
from capfilt.weights import store

# Each rank's lines, in one process group after the other; `t` is the loop's own test, for its data.
PAIR = """
    import dataclasses, os, pathlib, signal, sys, torch
    sys.path.insert(0, {here!r})
    import test_loop as t
    from capfilt.ranks import from_environment
    from capfilt.runtime import Terminated
    torch.set_num_threads(1)
    ranks, out = from_environment(), pathlib.Path({out!r})

    def run(name, **changes):
        model, batches = t.setting(dropout=0.1)
        config = dataclasses.replace(t.QUICK, schedule=t.Schedule(rate=1e-4), **changes)
        t.fit(model, batches, t.Objective(), config, out / name, name, ranks)
        return model

    run("plain")
    model = run("shared", shard=True)
    if not ranks.rank:
        t.store.save_tensors(out / "returned.safetensors", model.state_dict())
    run("joint plain", accumulate=2, steps=3)
    run("joint shared", accumulate=2, steps=3, shard=True)

    original = t.loop._Run.update

    def stopping(self, found):
        values = original(self, found)
        kept = [s for p in self.parameters for s in (p.detach(), *self.optimiser.state[p].values())]
        held = sum(s.to_local().numel() if hasattr(s, "to_local") else s.numel() for s in kept)
        (out / f"held {{ranks.rank}}").write_text(f"{{held}} {{sum(s.numel() for s in kept)}}")
        if self.step == 3 and ranks.rank:
            os.kill(os.getpid(), signal.SIGTERM)
        return values

    t.loop._Run.update = stopping
    try:
        run("parts", shard=True, checkpoint_s=1e9)
        raise SystemExit("it went on")
    except Terminated:
        pass
    t.loop._Run.update = original
    run("parts", shard=True)
    torch.distributed.destroy_process_group()
"""


@pytest.fixture(scope="module")
def out(tmp_path_factory) -> Path:
    """What the two processes left."""
    where = tmp_path_factory.mktemp("sharded")
    code = textwrap.dedent(PAIR.format(here=str(Path(__file__).parent), out=str(where)))
    both_know = dict(os.environ, WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(20000 + os.getpid() % 20000))
    both = [subprocess.Popen([sys.executable, "-c", code], env=dict(both_know, RANK=str(r))) for r in range(2)]
    assert [p.wait(timeout=240) for p in both] == [0, 0]
    return where


def curve(folder: Path) -> np.ndarray:
    rows = read_jsonl(folder / "metrics.jsonl")
    return np.array([[row[k] for k in ("step", "itc", "itm", "lm", "rate")] for row in rows])


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return store.load(folder)[0].state_dict()


@pytest.mark.parametrize("name", ["", "joint "])
def test_the_losses_are_those_of_whole_models(out, name):
    plain, shared = curve(out / f"{name}plain"), curve(out / f"{name}shared")
    assert plain.shape == shared.shape and len(plain) >= 3
    np.testing.assert_allclose(plain, shared, atol=1e-5)
    a, b = weights(out / f"{name}plain"), weights(out / f"{name}shared")
    assert a.keys() == b.keys()
    assert max((a[k].float() - b[k].float()).abs().max().item() for k in a) < 2e-4, "rates of 1e-4, few steps"


def test_stopped_and_resumed_it_is_bit_for_bit_the_same(out):
    whole, parts = weights(out / "shared"), weights(out / "parts")
    assert all(torch.equal(whole[k], parts[k]) for k in whole)
    assert (curve(out / "shared") == curve(out / "parts")).all()


def test_the_model_that_was_given_is_whole_and_trained(out):
    returned, saved = store.load_tensors(out / "returned.safetensors"), weights(out / "shared")
    assert all(torch.equal(returned[k], saved[k]) for k in saved)


def test_each_holds_half(out):
    shares = [[int(n) for n in (out / f"held {rank}").read_text().split()] for rank in range(2)]
    assert all(0.45 * whole < held < 0.55 * whole for held, whole in shares)


def test_one_process_and_other_models_are_refused():
    with pytest.raises(ConfigError, match="start with torchrun"):
        sharded(Blip(BLIPS["tiny"]), torch.device("cpu"), ALONE)
    with pytest.raises(ConfigError, match="only a Blip"):
        sharded(BlipNlvr(NLVRS["tiny"]), torch.device("cpu"), Ranks(0, 2))
