"""The engine of a cluster: Ray Data maps the stage over shards, on a pool of actors that grows and shrinks.

The shards of a window lie in Ray's object store, on the node of whoever asks; a window is one Ray dataset of one row a
shard. So a worker or a node that dies costs repeated work: actors are started anew, and what they held is computed
again from there. Tables travel as bytes inside that row, because Ray Data may not change a type, a chunk or a null of
them. Between two windows the actors open the stage anew, which is why a window is large.

Every node needs capfilt installed, as it is here, and the paths of the images. Ray's own telemetry is off.
"""

import contextlib
import json
import logging
import os
import socket
from collections import Counter
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

import capfilt
from capfilt import errors
from capfilt.clean.engines.tables import packed, unpacked
from capfilt.errors import CapfiltError, CheckFailed, ConfigError

if TYPE_CHECKING:
    from capfilt.clean.stages import Stage, Worker

AHEAD = 2  # shards at an actor: one that it works on, one that is there when it has done so
TRIES = 5  # of a shard; Ray itself would try for ever
PATIENCE = 10.0  # seconds for a cluster to answer
Row = dict[str, Any]


@dataclass(frozen=True)
class Cluster:
    """How much of which cluster.

    address: of a running one, as `ray.init` takes it; None starts one on this machine for the time of a run.
    workers: the most actors there may be; None for as many as there is room for, nodes that join included.
    cpus:    cores of an actor; None for its share of the smallest node: by GPUs, or all of it where there are none.
    gpus:    GPUs of an actor, 0 keeps it on the CPU; None for one where the cluster has some.
    window_mib: tasks that are in Ray's object store at a time.
    """

    address: str | None = None
    workers: int | None = None
    cpus: int | None = None
    gpus: float | None = None
    window_mib: int = 256

    def __post_init__(self) -> None:
        least = min(n for n in (self.workers, self.cpus, self.window_mib) if n is not None)
        if least < 1 or (self.gpus or 0) < 0:
            raise ConfigError(f"{self}: workers, cpus and window_mib from 1, gpus from 0 are needed")

    def run(self, stage: "Stage", tasks: Iterable[tuple[int, pa.Table]]) -> Generator[tuple[int, pa.Table], None, None]:
        """As every engine. Raises ConfigError without Ray or its cluster, CheckFailed for a shard it dies of."""
        tasks = iter(tasks)
        window = _window(tasks, self.window_mib * 2**20)
        with _connected(self.address) if window else contextlib.nullcontext():
            while window:
                yield from self._results(stage, window)
                window = _window(tasks, self.window_mib * 2**20)

    def _results(self, stage: "Stage", window: list[Row]) -> Iterator[tuple[int, pa.Table]]:
        import ray
        from ray import data

        cpus, gpus, room = self._share([node["Resources"] for node in ray.nodes() if node["Alive"]])
        most = min(self.workers or len(window), len(window))
        tries = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(_Tries).remote()
        dataset = data.from_items(window, override_num_blocks=len(window))
        dataset.context.enable_progress_bars = dataset.context.print_on_execution_start = False
        results = dataset.map_batches(
            _Actor,
            fn_constructor_args=(stage, "cuda" if gpus else "cpu", cpus, capfilt.__version__, tries),
            batch_size=1,
            batch_format="pyarrow",
            compute=data.ActorPoolStrategy(
                min_size=1, max_size=most, initial_size=min(most, room), max_tasks_in_flight_per_actor=AHEAD
            ),
            num_cpus=cpus,
            num_gpus=gpus,
        )
        for row in results.iter_rows():
            if row["error"] is not None:
                name, given = json.loads(row["error"])
                raise getattr(errors, name)(*given)
            yield row["shard"], unpacked(row["table"])

    def _share(self, nodes: list[dict[str, float]]) -> tuple[int, float, int]:
        """Cores and GPUs of an actor, and how many actors there is room for now."""
        gpus = self.gpus if self.gpus is not None else float(any(node.get("GPU") for node in nodes))
        able = [node for node in nodes if node.get("CPU") and node.get("GPU", 0) >= gpus]
        if not able:
            raise ConfigError(f"no node of the cluster has cores and {gpus:g} GPUs")
        parts = [node["CPU"] * (gpus / node["GPU"] if gpus else 1) for node in able]
        cpus = self.cpus or max(1, int(min(parts)))
        rooms = (min(node["CPU"] // cpus, node["GPU"] // gpus if gpus else node["CPU"]) for node in able)
        return cpus, gpus, max(1, int(sum(rooms)))


class _Tries:
    """How often each shard was begun."""

    def __init__(self) -> None:
        self.begun: Counter[int] = Counter()

    def begin(self, shard: int) -> int:
        self.begun[shard] += 1
        return self.begun[shard]


class _Actor:
    """A worker of the pool: opens the stage with its first shard."""

    def __init__(self, stage: "Stage", device: str, cores: int, version: str, tries: Any) -> None:
        os.environ["CAPFILT_CORES"] = str(cores)
        self.stage, self.device, self.version, self.tries = stage, device, version, tries
        self.worker: Worker | None = None

    def __call__(self, batch: pa.Table) -> pa.Table:
        (row,) = batch.to_pylist()
        table = error = None
        try:
            table = packed(self._worker_for(row["shard"]).work(unpacked(row["table"])))
        except CapfiltError as raised:
            error = json.dumps([type(raised).__name__, raised.__reduce__()[1]])  # what it is made from
        return pa.table({"shard": [row["shard"]], "table": [table], "error": [error]}, SCHEMA)

    def _worker_for(self, shard: int) -> "Worker":
        import ray

        if self.version != capfilt.__version__:
            raise ConfigError(f"a node has capfilt {capfilt.__version__} where the run has {self.version}")
        if ray.get(self.tries.begin.remote(shard)) > TRIES:
            raise CheckFailed(
                f"ray: {TRIES} workers ended at shard {shard}, perhaps for lack of memory; what was done before is kept"
            )
        self.worker = self.worker or self.stage.open(self.device)
        return self.worker


SCHEMA = pa.schema([("shard", pa.int64()), ("table", pa.large_binary()), ("error", pa.string())])


def _window(tasks: Iterator[tuple[int, pa.Table]], size: int) -> list[Row]:
    """The next tasks that come to so many bytes."""
    window: list[Row] = []
    while size > 0 and (task := next(tasks, None)):
        window.append({"shard": task[0], "table": packed(task[1])})
        size -= len(window[-1]["table"])
    return window


@contextlib.contextmanager
def _connected(address: str | None) -> Iterator[None]:
    """Inside the block this process is a driver; a cluster that was started for it ends behind it."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ConfigError(f"the engine ray needs Ray ({error}): pip install 'capfilt[ray]'") from None
    if ray.is_initialized():  # whoever did that ends it
        yield
        return
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    dashboard = None if address else False  # of a cluster that runs it is not ours to say
    try:
        if address and ":" in address:  # Ray itself would try for minutes
            host, _, port = address.removeprefix("ray://").rpartition(":")
            socket.create_connection((host, int(port)), PATIENCE).close()
        ray.init(address or "local", include_dashboard=dashboard, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ConfigError(f"ray address {address or 'local'}: {reason}") from None
    try:
        yield
    finally:
        ray.shutdown()
