"""Where a stage's work is done: in this process, in one process a device, or on a Ray cluster.

    run(stage, tasks) → results

`tasks` are (shard, table) and so are the results, which come in any order: whoever asks commits them. An engine takes
few tasks ahead of its results, a cluster as many as its window holds. Errors of `capfilt.errors` that the work raises
are raised by `run` as they are. Leaving `run` early, as by Ctrl-C or `close()`, ends all that it started. Tables are
the same from every engine, down to the bytes that they are written as.
"""

from collections.abc import Generator, Iterable
from typing import TYPE_CHECKING, Protocol

import pyarrow as pa

from capfilt.errors import ConfigError

if TYPE_CHECKING:
    from capfilt.clean.stages import Stage

ENGINES = ("local", "ray")


class Engine(Protocol):
    """Runs a stage over shards."""

    def run(self, stage: "Stage", tasks: Iterable[tuple[int, pa.Table]]) -> Generator[tuple[int, pa.Table], None, None]:
        """The results of all tasks, in any order."""
        ...


def engine(name: str = "local", address: str | None = None) -> Engine:
    """The engine that a command names: `local` for this machine's devices (CAPFILT_DEVICE), or `ray`.

    address: of a Ray cluster, see `Cluster`. Raises ConfigError for another name, and for an address with `local`.
    """
    from capfilt.clean.engines.cluster import Cluster
    from capfilt.clean.engines.here import Here
    from capfilt.clean.engines.local import Local  # not above: as a command it must not be imported before it runs
    from capfilt.predict.replicas import everywhere  # loads torch

    if name == "ray":
        return Cluster(address)
    if name != "local":
        raise ConfigError(f"engine {name}: there are {' and '.join(ENGINES)}")
    if address:
        raise ConfigError(f"the Ray address {address} is for the engine ray: add --engine ray")
    devices = everywhere()
    return Local(tuple(devices)) if len(devices) > 1 else Here(devices[0])
