"""The engine of one device: the work is done in this process, shard after shard."""

from collections.abc import Generator, Iterable
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

import pyarrow as pa

if TYPE_CHECKING:
    from capfilt.clean.stages import Stage


@dataclass(frozen=True)
class Here:
    """device: as `Stage.open` takes it."""

    device: str | None = None

    def run(self, stage: "Stage", tasks: Iterable[tuple[int, pa.Table]]) -> Generator[tuple[int, pa.Table], None, None]:
        """As every engine; the results come in the order of the tasks."""
        tasks = iter(tasks)
        for first in tasks:  # a model is not loaded for nothing
            with closing(stage.open(self.device)) as worker:
                for shard, table in chain([first], tasks):
                    yield shard, worker.work(table).combine_chunks()  # as what travels is
