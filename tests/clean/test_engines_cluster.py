"""On a real Ray cluster of three nodes: the tables are those of one process, whichever worker or node dies."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from capfilt.clean.engines.cluster import Cluster
from capfilt.clean.engines.here import Here
from capfilt.errors import CheckFailed, ConfigError, ImageError

pytestmark = pytest.mark.slow
ray = pytest.importorskip("ray", reason="capfilt[ray] is not installed, so the Ray engine goes untested here")
HERE = Path(__file__).parent
STORE = 80 * 2**20


@pytest.fixture(scope="module", autouse=True)
def importable():
    """Actors find the stage of the tests, as this process does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(HERE))
        patch.setenv("PYTHONPATH", str(HERE), prepend=os.pathsep)
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        yield


@pytest.fixture(scope="module")
def nodes(importable):
    """A cluster of a head and two more nodes, a core each."""
    from ray.cluster_utils import Cluster as Nodes

    small = {"num_cpus": 1, "object_store_memory": STORE, "include_dashboard": False}
    nodes = Nodes(initialize_head=True, head_node_args=small)
    for _ in range(2):
        nodes.add_node(num_cpus=1, object_store_memory=STORE)
    yield nodes
    nodes.shutdown()


def louder(tmp_path: Path, sleep_s: float = 0.0):
    from fake_stages import Louder

    return Louder(str(tmp_path), sleep_s)


def tasks(count: int, **orders: str):
    from fake_stages import tasks

    return tasks(count, **orders)


def opened(tmp_path: Path) -> list[int]:
    from fake_stages import noted

    return noted(tmp_path, "opened")


def as_written(results, folder: Path) -> dict[int, bytes]:
    from test_engines import as_written

    return as_written(results, folder)


def expected(tmp_path: Path, count: int, **orders: str) -> dict[int, bytes]:
    """What one process writes."""
    (tmp_path / "alone").mkdir()
    return as_written(Here().run(louder(tmp_path / "alone"), tasks(count, **orders)), tmp_path)


def gone(process: int) -> bool:
    from test_engines import gone

    return gone(process)


def test_actors_on_all_nodes_write_what_one_process_does(nodes, tmp_path):
    cluster = Cluster(nodes.address)
    assert as_written(cluster.run(louder(tmp_path, 0.2), tasks(24)), tmp_path) == expected(tmp_path, 24)
    assert len(opened(tmp_path)) >= 3 and not ray.is_initialized()  # the pool also shrinks and grows
    assert all(map(gone, opened(tmp_path)))


def test_results_come_while_others_are_worked_on(nodes, tmp_path):
    began, times = time.monotonic(), []
    for _ in Cluster(nodes.address, workers=1).run(louder(tmp_path, 0.3), tasks(12)):
        times.append(time.monotonic() - began)
    assert times[0] < times[-1] - 9 * 0.3


def test_windows_follow_one_another(nodes, tmp_path, monkeypatch):
    import capfilt.clean.engines.cluster as engine

    whole, window = expected(tmp_path, 7), engine._window
    monkeypatch.setattr(engine, "_window", lambda tasks, size: window(tasks, 3000))
    assert as_written(Cluster(nodes.address).run(louder(tmp_path), tasks(7)), tmp_path) == whole
    assert len(window(iter(tasks(7)), 3000)) < 7


def test_what_the_work_raises_arrives(nodes, tmp_path):
    with pytest.raises(ImageError, match="does not want to") as caught:
        list(Cluster(nodes.address).run(louder(tmp_path), tasks(6, shard_2="refuse")))
    assert caught.value.reason == "refused"
    with pytest.raises(ray.exceptions.RayTaskError, match="a bug"):
        list(Cluster(nodes.address).run(louder(tmp_path), tasks(6, shard_2="break")))


def test_a_worker_that_is_killed_costs_repeated_work(nodes, tmp_path):
    orders = {f"shard_{shard}": "die once" for shard in (3, 11)}
    whole = expected(tmp_path, 30, **dict.fromkeys(orders, "DIE ONCE"))

    def killed(results):
        for done, result in enumerate(results):
            if done == 5:
                os.kill(next(p for p in opened(tmp_path) if alive(p)), signal.SIGKILL)
            yield result

    assert as_written(killed(Cluster(nodes.address).run(louder(tmp_path, 0.2), tasks(30, **orders))), tmp_path) == whole
    assert len(opened(tmp_path)) >= 3 + 3


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_node_that_goes_costs_repeated_work(nodes, tmp_path):
    whole, extra = expected(tmp_path, 40), nodes.add_node(num_cpus=1, object_store_memory=STORE)
    goes: list[threading.Thread] = []

    def killed(results):
        for done, result in enumerate(results):
            if done == 8:
                goes.append(threading.Thread(target=nodes.remove_node, args=(extra, False)))
                goes[0].start()
            yield result

    assert as_written(killed(Cluster(nodes.address).run(louder(tmp_path, 0.2), tasks(40))), tmp_path) == whole
    goes[0].join()
    assert extra not in nodes.list_all_nodes()


def test_a_shard_that_kills_every_worker_is_an_error(nodes, tmp_path):
    with pytest.raises(CheckFailed, match="5 workers ended at shard 1"):
        list(Cluster(nodes.address).run(louder(tmp_path), tasks(4, shard_1="die")))


def test_a_run_that_is_left_leaves_no_actor(nodes, tmp_path):
    results = Cluster(nodes.address).run(louder(tmp_path, 0.2), tasks(30))
    next(results)
    results.close()
    assert opened(tmp_path) and all(map(gone, opened(tmp_path))) and not ray.is_initialized()


def test_no_cluster_there_is_one_line(tmp_path):
    with pytest.raises(ConfigError, match="ray address localhost:1"):
        list(Cluster("localhost:1").run(louder(tmp_path), tasks(1)))


def test_a_cluster_of_its_own_ends_with_the_run_or_its_parent(tmp_path):
    code = f"""
import sys
from fake_stages import Louder, tasks
from capfilt.clean.engines.cluster import Cluster
for one in Cluster(cpus=1).run(Louder({str(tmp_path)!r}, .1), tasks(int(sys.argv[1]))): print("one", flush=True)
"""
    done = subprocess.run([sys.executable, "-c", code, "5"], capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stdout) == (0, "one\n" * 5), done.stderr
    assert done.stderr.count("\n") <= 1  # Ray is quiet but for a line of its core about restarts
    with subprocess.Popen([sys.executable, "-c", code, "500"], stdout=subprocess.PIPE, process_group=0) as parent:
        assert parent.stdout is not None and parent.stdout.readline() == b"one\n"
        os.killpg(parent.pid, signal.SIGKILL)
    assert all(map(gone, opened(tmp_path)))
