"""The engine of several devices: a process for each, shards dealt to whichever has the fewest.

They are started as commands on a socket, as `predict.replicas` does: no `__main__` guard is needed, and one that has
lost its parent ends at once. Tables travel as Arrow's bytes. A process that dies is started anew and gets its shards
again; the shard it died of, no more than `TRIES` times in all.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections import Counter
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import pyarrow as pa

import capfilt
from capfilt.clean.engines.tables import packed, unpacked
from capfilt.errors import CapfiltError, CheckFailed
from capfilt.runtime import calm_allocator, usable_cores

if TYPE_CHECKING:
    from capfilt.clean.stages import Stage

AHEAD = 2  # shards at a device: one that it works on, one that is there when it has done so
TRIES = 3
PATIENCE = 10.0  # seconds that a process has to close what it opened


@dataclass(frozen=True)
class Local:
    """devices: as torch names them; one may be named twice."""

    devices: tuple[str, ...]

    def run(self, stage: "Stage", tasks: Iterable[tuple[int, pa.Table]]) -> Generator[tuple[int, pa.Table], None, None]:
        """As every engine. Raises CheckFailed, which names the device, for a shard that its process dies of."""
        tasks, cores = iter(tasks), max(1, usable_cores() // len(self.devices))
        with contextlib.ExitStack() as running:
            workers = [_Worker(stage, device, cores) for device in self.devices]
            for worker in workers:
                running.callback(worker.kill)
            while True:
                _deal(workers, tasks)
                lines = {worker.line: worker for worker in workers if worker.waiting}
                if not lines:
                    break
                for line in wait(list(lines)):
                    yield from lines[line].answers()  # type: ignore[index]  # only what was waited for comes back
            for worker in workers:
                worker.dismiss()
            for worker in workers:
                worker.see_off()


def _deal(workers: list["_Worker"], tasks: Iterator[tuple[int, pa.Table]]) -> None:
    """Hands out tasks until every worker has enough, or none is left."""
    while len((worker := min(workers, key=lambda worker: len(worker.waiting))).waiting) < AHEAD:
        for shard, table in tasks:
            worker.give(shard, packed(table))
            break
        else:
            return


class _Worker:
    """A process, seen from its parent. It starts with its first task."""

    def __init__(self, stage: "Stage", device: str, cores: int) -> None:
        self.stage, self.device, self.cores = stage, device, str(cores)
        self.waiting: dict[int, bytes] = {}  # what it was given and has not answered, first to last
        self.deaths: Counter[int] = Counter()
        self.process: subprocess.Popen | None = None

    def give(self, shard: int, data: bytes) -> None:
        """One more task; it reads them while it works."""
        if self.process is None:
            self._start()
        self.waiting[shard] = data
        self._send((shard, data))

    def answers(self) -> Iterator[tuple[int, pa.Table]]:
        """The answer that is there, or none where the process has died instead and begins anew."""
        try:
            shard, answer = self.line.recv()
        except (EOFError, OSError):
            self._start_again()
            return
        del self.waiting[shard]
        if isinstance(answer, CapfiltError):
            raise answer
        yield shard, unpacked(answer)

    def dismiss(self) -> None:
        """Has it close what it opened, and end."""
        if self.process is not None:
            self._send(None)

    def see_off(self) -> None:
        """Until it has."""
        if self.process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(PATIENCE)

    def kill(self) -> None:
        """Ends it, whatever it is at."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.line.close()

    def _start(self) -> None:
        home = str(Path(capfilt.__file__).parents[1])  # it runs this very package, installed or not
        paths = os.pathsep.join(filter(None, (home, os.environ.get("PYTHONPATH"))))
        ours, its = socket.socketpair()
        with its:
            self.process = subprocess.Popen(
                (sys.executable, "-m", __name__, str(its.fileno()), self.device),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env={"OMP_NUM_THREADS": self.cores, **os.environ, "CAPFILT_CORES": self.cores, "PYTHONPATH": paths},
                process_group=0,  # Ctrl-C is the parent's to answer
                pass_fds=(its.fileno(),),
            )
        self.line = Connection(ours.detach())
        self._send(self.stage)

    def _start_again(self) -> None:
        assert self.process is not None
        code, first = self.process.wait(), next(iter(self.waiting))
        self.deaths[first] += 1
        if self.deaths[first] == TRIES:
            how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            raise CheckFailed(
                f"device {self.device}: its process ended {TRIES} times at shard {first} ({how}), perhaps for lack of "
                "memory; what was done before is kept, so run again with fewer devices"
            )
        self.line.close()
        self._start()
        for task in self.waiting.items():
            self._send(task)

    def _send(self, what: Any) -> None:
        with contextlib.suppress(OSError):  # whether it has died is seen where its answer is read
            self.line.send(what)


def serve(line: Connection, device: str) -> None:
    """A process's life: it opens the stage, then answers; what cannot be done is answered by the reason."""
    asked: SimpleQueue[Any] = SimpleQueue()
    threading.Thread(target=_listen, args=(line, asked), daemon=True).start()
    stage, worker = asked.get(), None
    while (task := asked.get()) is not None:
        shard, data = task
        answer: bytes | CapfiltError
        try:
            worker = worker or stage.open(device)
            answer = packed(worker.work(unpacked(data)))
        except CapfiltError as error:
            answer = error
        except Exception as error:
            traceback.print_exc()
            answer = CheckFailed(f"device {device}, shard {shard}: {type(error).__name__}: {error}")
        line.send((shard, answer))
    if worker:
        worker.close()


def _listen(line: Connection, asked: "SimpleQueue[Any]") -> None:
    try:
        while True:
            asked.put(line.recv())
    except (EOFError, OSError):
        pass  # the parent is gone: at once, whatever is under way
    except Exception:
        traceback.print_exc()  # a stage that cannot be read here
    os._exit(1)


def main() -> None:
    """Runs a process with the settings that `_Worker` adds to its command."""
    fd, device = sys.argv[1:]
    calm_allocator()
    with contextlib.suppress(BrokenPipeError):
        serve(Connection(int(fd)), device)


if __name__ == "__main__":
    main()
