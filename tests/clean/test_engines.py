"""One device or several, the tables are the same; deaths cost repeated work; nothing outlives a run."""

import os
import signal
import sys
import time
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from capfilt.clean import engines
from capfilt.clean.engines.cluster import Cluster
from capfilt.clean.engines.here import Here
from capfilt.clean.engines.local import AHEAD, TRIES, Local
from capfilt.clean.engines.tables import packed, unpacked
from capfilt.errors import CheckFailed, ConfigError, ImageError

TWO = Local(("cpu", "cpu"))


@pytest.fixture(scope="module", autouse=True)
def importable():
    """Processes find the stage of the tests, as this one does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parent))
        patch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
        yield


@pytest.fixture
def stage(tmp_path):
    from fake_stages import Louder

    return Louder(str(tmp_path))


def tasks(count: int, **orders: str) -> list[tuple[int, pa.Table]]:
    from fake_stages import tasks

    return tasks(count, **orders)


def noted(tmp_path: Path, what: str) -> list[int]:
    from fake_stages import noted

    return noted(tmp_path, what)


def as_written(results, folder: Path) -> dict[int, bytes]:
    """Each shard's bytes on disk."""
    found: dict[int, bytes] = {}
    for shard, table in results:
        assert shard not in found
        parquet.write_table(table, folder / "shard.parquet")
        found[shard] = (folder / "shard.parquet").read_bytes()
    return dict(sorted(found.items()))


def gone(process: int) -> bool:
    """Whether it has ended, or ends within seconds."""
    for _ in range(50):
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


def test_tables_travel_in_one_piece_with_all_they_are():
    table = pa.concat_tables(table for _, table in tasks(2)).replace_schema_metadata({"a": "b"}).slice(1)
    there = unpacked(packed(table))
    assert there.equals(table, check_metadata=True) and there["id"].num_chunks == 1 < table["id"].num_chunks
    assert unpacked(packed(table.slice(0, 0))).equals(table.slice(0, 0))
    assert len(packed(table.slice(0, 1))) < len(packed(table)) / 2  # what was sliced off stays


def test_two_processes_write_what_one_does(stage, tmp_path):
    alone = as_written(Here().run(stage, tasks(9)), tmp_path)
    assert noted(tmp_path, "opened") == noted(tmp_path, "closed") == [os.getpid()]
    assert as_written(TWO.run(stage, tasks(9)), tmp_path) == alone and len(alone) == 9
    assert len(noted(tmp_path, "opened")) == 3 and noted(tmp_path, "closed") == noted(tmp_path, "opened")


def test_only_what_has_work_is_started(stage, tmp_path):
    for engine in (Here(), TWO):
        assert list(engine.run(stage, [])) == []
    assert not noted(tmp_path, "opened")
    assert len(list(TWO.run(stage, tasks(1)))) == 1
    assert len(noted(tmp_path, "opened")) == 1


def test_tasks_are_taken_as_results_are(stage):
    for engine, ahead in ((Here(), 1), (TWO, 2 * AHEAD)):
        taken = []
        results = engine.run(stage, (taken.append(task[0]) or task for task in tasks(20)))
        for had, _ in enumerate(results):
            assert len(taken) <= had + ahead
        assert taken == list(range(20))


@pytest.mark.parametrize("engine", [Here(), TWO])
def test_what_the_work_raises_arrives_and_ends_the_run(stage, tmp_path, engine):
    with pytest.raises(ImageError, match="does not want to") as caught:
        list(engine.run(stage, tasks(9, shard_2="refuse")))
    assert caught.value.reason == "refused"
    assert all(gone(process) for process in noted(tmp_path, "opened") if process != os.getpid())


def test_a_bug_in_a_process_is_named_with_its_place(stage, capfd):
    with pytest.raises(CheckFailed, match="device cpu, shard 1: ValueError: a bug"):
        list(TWO.run(stage, tasks(3, shard_1="break")))
    assert 'raise ValueError("a bug")' in capfd.readouterr().err


def test_the_shards_of_a_process_that_dies_are_done_by_the_next(stage, tmp_path):
    whole = as_written(Here().run(stage, tasks(9, shard_0="DIE ONCE", shard_5="DIE ONCE")), tmp_path)
    assert as_written(TWO.run(stage, tasks(9, shard_0="die once", shard_5="die once")), tmp_path) == whole
    assert len(noted(tmp_path, "opened")) == 1 + 2 + 2


def test_a_shard_that_kills_every_process_is_named(stage, tmp_path):
    with pytest.raises(CheckFailed, match=rf"device cpu: .* {TRIES} times at shard 1 \(SIGKILL\)"):
        list(Local(("cpu",)).run(stage, tasks(3, shard_1="die")))
    assert len(noted(tmp_path, "opened")) == TRIES


def test_a_stage_that_cannot_be_read_there_is_an_error(stage, tmp_path, monkeypatch, capfd):
    monkeypatch.delenv("PYTHONPATH")
    with pytest.raises(CheckFailed, match="exit code 1"):
        list(Local(("cpu",)).run(stage, tasks(1)))
    assert "No module named 'fake_stages'" in capfd.readouterr().err


def test_a_run_that_is_left_leaves_nothing(stage, tmp_path):
    results = TWO.run(stage, tasks(9))
    next(results)
    results.close()
    assert len(noted(tmp_path, "opened")) >= 1 and all(map(gone, noted(tmp_path, "opened")))


def test_processes_end_with_a_parent_that_is_killed(tmp_path):
    import subprocess

    code = f"""
from fake_stages import Louder, tasks
from capfilt.clean.engines.local import Local
for _ in Local(("cpu", "cpu")).run(Louder({str(tmp_path)!r}, sleep_s=.2), tasks(500)): print("one", flush=True)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True) as parent:
        assert parent.stdout is not None and parent.stdout.readline() == b"one\n"
        os.killpg(parent.pid, signal.SIGKILL)
    children = noted(tmp_path, "opened")
    assert children and all(map(gone, children))


def test_the_engine_that_a_command_names(monkeypatch):
    monkeypatch.setenv("CAPFILT_DEVICE", "cpu,cpu")
    assert engines.engine() == TWO
    monkeypatch.setenv("CAPFILT_DEVICE", "cpu")
    assert engines.engine("local") == Here("cpu")
    assert engines.engine("ray", "host:1") == Cluster("host:1") and engines.engine("ray") == Cluster()
    for wrong in (("spark",), ("local", "host:1")):
        with pytest.raises(ConfigError):
            engines.engine(*wrong)
    for wrong in ({"workers": 0}, {"cpus": 0}, {"gpus": -1}, {"window_mib": 0}):
        with pytest.raises(ConfigError):
            Cluster(**wrong)


def test_actors_share_the_nodes_of_a_cluster():
    small, large, plain, head = {"CPU": 8.0, "GPU": 2.0}, {"CPU": 16.0, "GPU": 2.0}, {"CPU": 6.0}, {"memory": 1.0}
    assert Cluster()._share([plain, {"CPU": 4.0}, head]) == (4, 0, 2)  # a node is one actor's
    assert Cluster()._share([small, large, plain]) == (4, 1, 4)  # a GPU and the cores that go with it
    assert Cluster(gpus=0.5)._share([small]) == (2, 0.5, 4)
    assert Cluster(gpus=0, cpus=2)._share([small, plain]) == (2, 0, 7)
    with pytest.raises(ConfigError, match="no node"):
        Cluster(gpus=1)._share([plain, head])


def test_a_cluster_without_ray_says_what_to_install(stage, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"pip install 'capfilt\[ray\]'"):
        list(Cluster().run(stage, tasks(1)))
    assert list(Cluster().run(stage, [])) == []
