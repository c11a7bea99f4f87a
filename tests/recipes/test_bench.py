"""`capfilt bench` with tiny models, one round a row: every row runs, and sides that do different work are found out."""

import dataclasses
import itertools
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch

from capfilt.errors import CheckFailed, ConfigError
from capfilt.files import read_json, write_json
from capfilt.recipes import bench as package
from capfilt.recipes.bench import ALL, bench, gpu, measure, peers, rows, timing, work
from capfilt.recipes.bench.gpu import GPU
from capfilt.recipes.bench.other import Other
from capfilt.recipes.bench.peers import Shelf
from capfilt.recipes.bench.rows import ROWS
from capfilt.recipes.bench.steps import step
from capfilt.recipes.bench.timing import Spare
from capfilt.recipes.bench.work import CannotRun, Row, Work, same_numbers

pytest.importorskip("transformers")
OWN = {"ours_s", "peer_s", "ratio", "low", "high", "rounds"}
PAIRS = [name for name in ROWS if not name.startswith("step")]


@pytest.fixture(scope="module")
def shelf(tmp_path_factory) -> Shelf:
    return Shelf(tmp_path_factory.mktemp("bench"), "tiny")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Small products, no second tries, and every precision however slow it is here."""
    monkeypatch.setattr(package, "SIDE", {"cpu": 64})
    monkeypatch.setattr(timing, "busy_s", lambda: 0.0)
    monkeypatch.setattr(work, "INSTRUCTIONS", {})


def one_round(row: Row, shelf: Shelf) -> dict:
    return measure("row", row, shelf, 1, Spare(0))


def test_the_table_has_the_rows_of_the_issue():
    pairs = itertools.product(("fp32", "bf16"), (1, 8))
    expected = {f"{work}-{p}-b{b}" for p, b in pairs for work in ("encode", "greedy", "beam3")}
    expected |= {f"encode-{p}-b{b}-best" for p in ("fp32", "bf16") for b in (1, 8)}
    expected |= {
        f"{work}-{p}" for p in ("fp32", "bf16") for work in ("match-1x16", "match-16x1", "capfilt", "step-base")
    }
    expected |= {"encode-int8-b8", "capfilt-default", "capfilt-int8", "step-demo-fp32"}
    assert set(ROWS) == expected


@pytest.mark.parametrize("name", PAIRS)
def test_rows_of_models(name, shelf):
    if name.endswith("-best"):
        pytest.importorskip("onnx")
        pytest.importorskip("openvino")
    row = one_round(ROWS[name], shelf)
    assert set(row) >= OWN and row["rounds"] == 1 and row["ratio"] > 0
    assert ("share_of_limit" in row) == (name in ("encode-fp32-b8", "encode-bf16-b8"))
    if name == "encode-bf16-b8-best":
        assert row["left_out"] == {"onnxruntime": "runs no ViT in bf16 on a CPU"}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_rows_of_steps(precision, shelf):
    row = one_round(Row(1.5, partial(step, preset="tiny", size=4, precision=precision)), shelf)
    assert row["pairs"] == 4 and row["peer"] == "the plain step"


@pytest.mark.parametrize("name", [name for name in GPU if name.endswith("-384")])
def test_rows_of_a_gpu(name, shelf, monkeypatch):
    """With the CPU in its place, tiny models and a few images."""
    with pytest.raises(CannotRun, match="needs a GPU"):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        one_round(GPU[name], shelf)
    monkeypatch.setattr(gpu, "accelerator", lambda: torch.device("cpu"))
    build = GPU[name].build.keywords["build"]
    few = partial(build, size=4, preset="tiny", px=32) if "step" in name else partial(build, images=4)
    row = one_round(dataclasses.replace(GPU[name], build=partial(gpu.there, build=few, px=384)), shelf)
    assert row["ratio"] > 0 and {"images_per_s", "pairs_per_s"} & set(row)
    assert ("share_of_limit" in row) == ("encode" in name)


@pytest.mark.parametrize("name", ["attention-fp32-16-keys", "linear-2-rows-into-3072"])
def test_rows_of_kernels(name, shelf):
    assert one_round(ALL[name], shelf)["goal"] is None


@pytest.mark.slow
def test_the_compiled_step(tmp_path):
    """In a process of its own: the checks of shapes while tests run cannot be compiled."""
    out = tmp_path / "results.json"
    words = ("bench", "--rows", "step-demo-compiled", "--rounds", "1", "--out", str(out))
    subprocess.run([sys.executable, "-m", "capfilt", *words], check=True)
    assert read_json(out)["rows"]["step-demo-compiled"]["compiling_s"] > 0


@pytest.mark.parametrize(
    "name", ["encode-fp32-b1", "beam3-fp32-b8", "greedy-fp32-b8", "match-1x16-fp32", "capfilt-fp32"]
)
def test_other_weights_are_seen(name, tmp_path, monkeypatch):
    made = peers.ready

    def moved(model, precision, *rest, **more):
        with torch.no_grad():
            for layer in model.text.layers:
                layer.fc1.bias += torch.randn_like(layer.fc1.bias)
            model.vit.norm.bias += 1
        return made(model, precision)

    monkeypatch.setattr(peers, "ready", moved)
    with pytest.raises(CheckFailed):
        one_round(ROWS[name], Shelf(tmp_path, "tiny"))


def test_another_length_is_seen(shelf, monkeypatch):
    monkeypatch.setattr(rows, "WRITTEN", 19)
    with pytest.raises(CheckFailed, match=r"captions of \[19, 20\] ids"):
        one_round(ROWS["greedy-fp32-b1"], shelf)


def test_the_captions_compared_are_not_one_word(shelf):
    assert one_round(ROWS["greedy-fp32-b8"], shelf)["different_ids"] > 5


def test_models_leave_the_shelf(tmp_path):
    shelf = Shelf(tmp_path, "tiny")
    first = shelf.theirs("match", "fp32")()
    assert shelf.theirs("match", "fp32")() is first
    for precision in ("fp32", "bf16"):
        shelf.ours("match", precision), shelf.ours("caption", precision)
    assert shelf.theirs("match", "fp32")() is not first


def test_of_several_peers_the_fastest_counts(shelf):
    calls = {name: partial(time.sleep, s) for name, s in (("slow", 0.05), ("fast", 0.02))}
    row = one_round(Row(1.0, lambda _: Work(lambda: None, calls, lambda ours, peer: {})), shelf)
    assert row["peer"] == "fast" and row["peer_s"] < 0.045 and set(row["peers_s"]) == {"slow", "fast"}


def test_numbers_are_compared_by_their_largest():
    check = same_numbers(0.01)
    assert check(torch.tensor([100.0, 0.5]), torch.tensor([100.0, 0.0])) == {"difference": 0.005}
    with pytest.raises(CheckFailed, match=r"differ by 0\.02"):
        check(torch.tensor([100.0, 2.0]), torch.tensor([100.0, 0.0]))
    with pytest.raises(CheckFailed, match="nan"):
        check(torch.tensor([float("nan")]), torch.ones(1))


# ---- the whole run ----------------------------------------------------------------------------------------------


def test_rows_of_one_machine_come_together(tmp_path: Path, capsys):
    out = tmp_path / "bench" / "results.json"
    bench(["match-16x1-fp32"], rounds=1, out=out, size="tiny")
    found = bench(["greedy-fp32-b1"], rounds=1, out=out, size="tiny")
    assert read_json(out) == found
    assert set(found) == {"machine", "limits", "rows", "skipped", "failed"}
    assert set(found["rows"]) == {"match-16x1-fp32", "greedy-fp32-b1"} and set(found["limits"]) == {
        "fp32",
        "bf16",
        "int8",
    }
    write_json(out, {**found, "machine": {"cpu": "another"}})
    assert set(bench(["match-16x1-fp32"], rounds=1, out=out, size="tiny")["rows"]) == {"match-16x1-fp32"}
    assert "of another machine" in capsys.readouterr().out


def test_peers_work_in_a_process_of_their_own(tmp_path: Path, shelf):
    row, other = ROWS["match-1x16-fp32"], Other(shelf.folder, shelf.size)
    try:
        before = shelf._kept.copy()
        assert measure("match-1x16-fp32", row, shelf, 1, Spare(0), other)["difference"] < 1e-3
        assert other.cpu_s > 0
        made = [key for key in shelf._kept if key not in before]
        assert not [key for key in made if key[0] == "theirs"], "nothing of the peer is made here"
        other.process.kill()
        with pytest.raises(CheckFailed, match="exit code -9"):
            other.build("greedy-fp32-b1")
    finally:
        other.close()


def test_what_this_machine_cannot_run_is_told(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setattr(work, "INSTRUCTIONS", {"int8": ("amx_int9",)})
    found = bench(["encode-int8-b8", "linear-2-rows-into-3072"], rounds=1, out=tmp_path / "r.json", size="tiny")
    assert found["skipped"] == {"encode-int8-b8": "this CPU has no int8 instructions (amx_int9)"}
    assert set(found["rows"]) == {"linear-2-rows-into-3072"} and set(found["limits"]) == {"fp32", "bf16"}
    assert "encode-int8-b8: skipped, this CPU has no int8" in capsys.readouterr().out


def test_missing_packages_are_told(shelf, monkeypatch):
    monkeypatch.setattr(peers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(CannotRun, match="pip install"):
        one_round(ROWS["encode-fp32-b1-best"], shelf)


def test_a_row_that_differs_fails_when_all_is_written(tmp_path: Path, monkeypatch):
    sides = Work(lambda: torch.ones(1), {"peer": lambda: torch.zeros(1) + 2}, same_numbers(0.1))
    monkeypatch.setitem(package.ALL, "differs", Row(1.0, lambda _: sides))
    out = tmp_path / "r.json"
    with pytest.raises(CheckFailed, match="differs: "):
        bench(["differs", "linear-2-rows-into-3072"], rounds=1, out=out, size="tiny")
    assert set(read_json(out)["rows"]) == {"linear-2-rows-into-3072"} and set(read_json(out)["failed"]) == {"differs"}


def test_unknown_rows(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"no row encode-fp16-b1; there are encode-fp32-b1, "):
        bench(["encode-fp16-b1"], out=tmp_path / "r.json")
