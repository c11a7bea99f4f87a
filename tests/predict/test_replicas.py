"""Two replicas answer as one model does; what goes wrong in one is one error; none outlives its parent."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import capfilt
from capfilt.errors import CheckFailed, ConfigError, WeightsError
from capfilt.inputs.tokenizer import TextTokenizer
from capfilt.models.blip import PRESETS, Blip
from capfilt.predict import replicas, use
from capfilt.predict.predictor import Predictor
from capfilt.predict.replicas import Job, Opening, Replicas, everywhere
from capfilt.weights import store

PIXELS = np.zeros((1, 32, 32, 3), np.uint8)
SCRIPT = """
import sys, numpy as np, capfilt
from capfilt.predict import use
use.MANY, use.CHUNK = 4, 2
model = capfilt.load(sys.argv[1])
pictures = list(np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), np.uint8))
print(len(model.caption(pictures)), *(replica.process.pid for replica in model.replicas.running), flush=True)
while True:
    model.caption(pictures)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    at = tmp_path_factory.mktemp("model")
    words = TextTokenizer.train(["a red cube beside a blue ball"], 64)
    model, random = Blip(PRESETS["tiny"].with_words(words)), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in model.parameters():
            p.normal_(0.0, 0.3, generator=random)
    store.save(model, words, at)
    return str(at)


@pytest.fixture(scope="module")
def both(folder) -> tuple[capfilt.Model, capfilt.Model]:
    """The model on one device, and on two."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CAPFILT_DEVICE", "cpu")
        one = capfilt.load(folder)
        patch.setenv("CAPFILT_DEVICE", "cpu, cpu")
        return one, capfilt.load(folder)


def embedded(pixels: np.ndarray = PIXELS, **settings: object) -> Job:
    return Job(Predictor, Predictor.embed_images, (pixels,), settings)


def gone(pid: int) -> bool:
    """Whether a process ends within ten seconds."""
    for _ in range(100):
        try:
            if Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.1)
    return False


def test_two_answer_as_one(both, monkeypatch):
    one, two = both
    monkeypatch.setattr(use, "MANY", 6)
    monkeypatch.setattr(use, "CHUNK", 2)
    pictures = [*np.random.default_rng(0).integers(0, 256, (12, 32, 32, 3), np.uint8)]
    pictures[3], pictures[6], pictures[7] = b"", b"<html>", b""  # a chunk without any
    texts = [["a red cube", "a ball", "a blue ball beside a red cube"][: i % 4] for i in range(12)]
    drawn = one.caption(pictures, top_p=0.95, n=2, seed=3)
    assert two.caption(pictures, top_p=0.95, n=2, seed=3) == drawn and len({c.tokens for of in drawn for c in of}) > 10
    assert two.caption(pictures, prompt="a red") == one.caption(pictures, prompt="a red") != one.caption(pictures)
    assert repr(two.match(pictures, texts)) == repr(one.match(pictures, texts))  # NaN is not equal to itself
    with pytest.warns(UserWarning, match="3 images have no vector"):
        np.testing.assert_array_equal(two.embed_images(pictures), one.embed_images(pictures))
    assert [replica.name for replica in two.replicas.running] == two.devices == ["cpu", "cpu"]
    assert "cpu, cpu" in repr(two) and one.replicas is None


def test_short_lists_start_nothing(folder, monkeypatch):
    monkeypatch.setenv("CAPFILT_DEVICE", "cpu,cpu")
    model = capfilt.load(folder)
    model.caption([*PIXELS] * 3, beams=1)
    model.match(PIXELS[0], "a red cube")
    assert model.replicas is not None and not model.replicas.running


def test_what_goes_wrong_is_one_error_and_the_next_call_begins_anew(folder, tmp_path):
    replicas = Replicas(Opening(folder, {}, "auto", "torch"), ["cpu"])
    assert np.isfinite(replicas.answers([embedded()])).all()
    os.kill(replicas.running[0].process.pid, signal.SIGKILL)
    with pytest.raises(CheckFailed, match=r"device cpu: its process ended \(SIGKILL\)"):
        replicas.answers([embedded()] * 3)
    with pytest.raises(CheckFailed, match=r"device cpu: TypeError: .*nonsense"):
        replicas.answers([embedded(nonsense=1)])
    replicas.opening = Opening(tmp_path / "gone", {}, "auto", "torch")
    with pytest.raises(WeightsError, match="gone"):
        replicas.answers([embedded()])
    assert not replicas.running


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_none_outlives_a_script_that_has_no_guard(folder, root, tmp_path, sent):
    (tmp_path / "script.py").write_text(SCRIPT)
    script = subprocess.Popen(
        [sys.executable, str(tmp_path / "script.py"), folder],
        env={**os.environ, "PYTHONPATH": str(root / "src"), "CAPFILT_DEVICE": "cpu,cpu"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        process_group=0,
        text=True,
    )
    answers, *replicas = map(int, script.stdout.readline().split())
    assert (answers, len(replicas)) == (8, 2)
    os.killpg(script.pid, sent)
    _, told = script.communicate(timeout=30)
    assert script.returncode == -sent and told.count("Traceback") == (sent == signal.SIGINT)  # its own
    assert all(gone(pid) for pid in replicas)


def test_devices_that_are_named_or_there(monkeypatch):
    monkeypatch.delenv("CAPFILT_DEVICE", raising=False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(replicas, "device", lambda: os.environ.get("CAPFILT_DEVICE", "cuda"))  # one that is there
    assert everywhere() == ["cuda:0", "cuda:1", "cuda:2"]
    monkeypatch.setenv("CAPFILT_DEVICE", "cuda:2, cuda:0,cpu")
    assert everywhere() == ["cuda:2", "cuda:0", "cpu"]
    for wrong in ("cuda:3", "gpu", ""):
        monkeypatch.setenv("CAPFILT_DEVICE", f"cuda:0,{wrong}")
        with pytest.raises(ConfigError, match=f"CAPFILT_DEVICE=cuda:0,{wrong}: no device '{wrong}' here; torch sees 3"):
            everywhere()
    monkeypatch.setenv("CAPFILT_DEVICE", "cpu")
    assert everywhere() == ["cpu"]
    monkeypatch.delenv("CAPFILT_DEVICE")
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert everywhere() == ["cuda"]
