"""The kill loop kills, goes on, and sees what is lost, twice there or different; a short loop of the real command."""

import json
import sys
from pathlib import Path

import pytest

from capfilt.errors import CheckFailed
from capfilt.recipes import kill_loop as loop
from capfilt.recipes.kill_loop import kill_loop

SCRIPT = """
import sys, time
from pathlib import Path
import pyarrow as pa
from pyarrow import parquet
from capfilt.clean.columns import ROWS
from capfilt.clean.ledger import Ledger
from capfilt.files import atomic, lease

out = Path(sys.argv[1])
wrong = sys.argv[2] if out.name == "killed" else "nothing"
with lease(out):
    ledger = Ledger(out)
    for shard in range(20):
        if shard not in ledger.shards("rows"):
            time.sleep(.02)
            rows = pa.Table.from_pylist([{"id": f"{shard}-{row}"} for row in range(3)], schema=ROWS)
            ledger.commit("rows", shard, rows)
    every = pa.concat_tables(ledger.tables("rows", ["id"]))
    if wrong == "spoils":
        every = pa.concat_tables([every.slice(2), every.slice(9, 4)])
        (out / "rows" / "half").touch()
    if wrong == "fails":
        sys.exit("no more")
    atomic(out / "decisions.parquet", lambda to: parquet.write_table(every, to))
"""


def killed(work: Path, wrong: str = "nothing", kills: int = 4, **more) -> dict:
    return kill_loop(work, lambda out: [sys.executable, "-c", SCRIPT, str(out), wrong], kills, **more)


@pytest.mark.slow
def test_what_survives_is_whole(tmp_path, capsys):
    found = killed(tmp_path, export=lambda run, to: to.write_bytes((run / "decisions.parquet").read_bytes()))
    assert found == {"kills": 4, "runs": found["runs"], "lost": 0, "duplicated": 0, "different": []}
    assert found["runs"] >= 1  # how many come to their end between the kills is the machine's affair
    assert json.loads(capsys.readouterr().err.splitlines()[-1])["kills"] == 4


def test_what_does_not_is_seen(tmp_path):
    found = killed(tmp_path, "spoils", kills=1)
    runs = found["runs"]  # more than one where a run was faster than its kill
    different = ["decisions.parquet", "rows/half"]
    assert found == {"kills": 1, "runs": runs, "lost": 2 * runs, "duplicated": 4 * runs, "different": different}


def test_a_run_that_cannot_go_on_is_shown(tmp_path):
    with pytest.raises(CheckFailed, match="ended with 1 by itself:\nno more"):
        killed(tmp_path, "fails", kills=1)


def test_a_difference_is_an_error(tmp_path, monkeypatch, capsys):
    found = {"kills": 1, "runs": 1, "lost": 0, "duplicated": 0, "different": ["rows/00000.parquet"]}
    monkeypatch.setattr(loop, "cleaning", lambda *given: None)
    monkeypatch.setattr(loop, "kill_loop", lambda *given: found)
    with pytest.raises(CheckFailed, match="rows/00000"):
        loop.main([str(tmp_path)])
    assert json.loads(capsys.readouterr().out) == {"engine": "here", **found}


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["here", "local", "ray"])
def test_the_real_command_survives(tmp_path, engine):
    if engine == "ray":
        pytest.importorskip("ray", reason="capfilt[ray] is not installed, so no cluster can be killed")
    loop.main([str(tmp_path), "--kills", "5", "--engine", engine])
