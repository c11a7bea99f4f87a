"""The study's bookkeeping: gains between arms of the same seed, seeds with numbers are not run again, stopping."""

import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from capfilt.config import fingerprint
from capfilt.files import read_json, write_json
from capfilt.recipes import demo, study


def seeds(*levels: float) -> dict:
    """A run a seed: every measure of every arm lies at the seed's level, `bootstrapped` .2 above it, `filter` .1."""
    above = {"bootstrapped": 0.2, "filter": 0.1}
    found: dict = {}
    for seed, at in enumerate(levels):
        models = {arm: dict.fromkeys(study.MEASURES, at + above.get(arm, 0)) for arm in study.ARMS}
        found[str(seed)] = {"models": models, **{key: dict.fromkeys(study.FILTER, at) for key in study.FILTERS}}
    return found


def test_gains_compare_arms_of_the_same_seed():
    """Seeds differ far more than arms do; the interval must not widen with them."""
    found = study.gains(seeds(0.1, 0.5, 0.7))
    assert set(found) == set(study.ARMS) - {"bootstrapped"}
    assert found["noisy"]["tr1"] == pytest.approx([0.2, 0.2, 0.2])
    assert found["filter"]["cider"] == pytest.approx([0.1, 0.1, 0.1])
    assert study.gains(seeds(0.1)) == {}  # one seed says nothing


def test_the_table_stands_beside_the_papers():
    lines = study.table(seeds(0.1, 0.3)).splitlines()
    row = next(line for line in lines if line.startswith("| filter: "))
    assert "| 0.300 |" in row and row.endswith("| 79.1, 61.5, 128.2 |")
    assert next(line for line in lines if line.startswith("| human: ")).endswith("| not in the paper |")
    assert any(line.startswith("| noisy | +0.200 [+0.200, +0.200] |") for line in lines)
    assert "| as used | 0.2000 (0.1000) | 0.2000 (0.1000) | 0.2000 (0.1000) |" in lines


def test_the_committed_study_is_the_demos_and_stands_in_the_documents():
    """Settings that change make the study stale: run it again."""
    docs = Path(__file__).resolve().parents[2] / "docs"
    found = read_json(docs / "study.json")
    assert found["settings"] == fingerprint(demo().outcome())
    assert len(found["seeds"]) >= 5
    shown = (docs / "numbers.md").read_text(encoding="utf-8").split("<!-- study -->\n")[1].split("<!-- /study -->")[0]
    assert shown == study.table(found["seeds"])


def test_a_study_with_all_its_seeds_only_writes_its_table(tmp_path, monkeypatch):
    monkeypatch.setattr(study, "one_seed", pytest.fail)
    mark = fingerprint(demo().outcome())
    write_json(tmp_path / "study.json", {"settings": mark, "seeds": seeds(0.1, 0.3)})
    assert study.study(2, tmp_path)["seeds"].keys() == {"0", "1"}
    assert (tmp_path / "study.md").is_file()
    assert read_json(tmp_path / "study.json")["settings"] == mark


SEEDS = """
import os
import time
from pathlib import Path

from capfilt.recipes import study
from capfilt.runtime import sigterm_raises
from capfilt.train.loop import _signals


def seed(name):
    with sigterm_raises(), _signals() as stop:  # as in training: stops between two steps only, its state saved
        Path(f"{os.getpid()}-{name}.runs").touch()
        while not stop:
            time.sleep(0.02)
        Path(name + ".saved").touch()
        raise stop[0]


if __name__ == "__main__":
    with sigterm_raises():
        list(study._side_by_side(seed, ("a", "b", "c", "d"), 2))
"""


@pytest.mark.parametrize("told", ["SIGINT group", "SIGTERM group", "SIGTERM alone"])
def test_a_study_that_is_told_to_stop_stops_its_seeds_and_ends(tmp_path, told):
    """Ctrl-C reaches the whole group, `kill` and a cluster's scheduler may reach the first process alone."""
    (tmp_path / "seeds.py").write_text(SEEDS)
    run = subprocess.Popen([sys.executable, "seeds.py"], cwd=tmp_path, start_new_session=True, stderr=subprocess.PIPE)
    try:
        waited = time.monotonic()
        while len(list(tmp_path.glob("*.runs"))) < 2 and run.poll() is None and time.monotonic() - waited < 60:
            time.sleep(0.05)
        (os.killpg if "group" in told else os.kill)(run.pid, getattr(signal, told.split()[0]))
        run.communicate(timeout=60)
    finally:
        if run.poll() is None:
            os.killpg(run.pid, signal.SIGKILL)
    assert run.returncode != 0
    assert {path.name for path in tmp_path.glob("*.saved")} == {"a.saved", "b.saved"}
    begun = list(tmp_path.glob("*.runs"))
    assert len(begun) == 2, "a process that was told to stop began another"
    for path in begun:
        with pytest.raises(ProcessLookupError):  # nobody is left behind
            os.kill(int(path.stem.partition("-")[0]), 0)


def test_seeds_run_side_by_side_and_all_come_back():
    assert dict(study._side_by_side(math.sqrt, (1, 4, 9, 16, 25), 2)) == {1: 1, 4: 2, 9: 3, 16: 4, 25: 5}
    with pytest.raises(ValueError, match="math domain"):
        list(study._side_by_side(math.sqrt, (1, -4, 9), 2))
