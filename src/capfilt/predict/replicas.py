"""One model on several devices: a process with a copy of it for each, chunks of images dealt out in turn.

Processes, not threads: between two words of a caption a device waits for Python, and threads would wait for each other
there. They are started as commands, as `data.decoders` does, so that a script needs no `__main__` guard; each opens the
checkpoint itself, so only pixels and answers travel. One that has lost its parent ends at once.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import warnings
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import cycle
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple, NoReturn

import torch

import capfilt
from capfilt.errors import CapfiltError, CheckFailed, ConfigError
from capfilt.predict.ready import ready
from capfilt.runtime import calm_allocator, device, usable_cores
from capfilt.weights.checkpoint import open_checkpoint

AHEAD = 2  # chunks at a device: one that it works on, one that is there when it has done so


def everywhere() -> list[str]:
    """The devices that CAPFILT_DEVICE names, commas between them, or all GPUs; a process of `torchrun` has its own.

    Raises ConfigError for one that does not exist.
    """
    named, gpus = os.environ.get("CAPFILT_DEVICE", ""), torch.cuda.device_count()
    first = str(device())
    if "," not in named:
        alone = named or gpus < 2 or int(os.environ.get("WORLD_SIZE", "1")) > 1
        return [first] if alone else [f"cuda:{i}" for i in range(gpus)]
    names = [name.strip() for name in named.split(",")]
    for name in names:
        try:
            there = (found := torch.device(name)).type != "cuda" or (found.index or 0) < gpus
        except RuntimeError:
            there = False
        if not there:
            raise ConfigError(f"CAPFILT_DEVICE={named}: no device {name!r} here; torch sees {gpus} GPUs")
    return names


class Job(NamedTuple):
    """What is asked of a model, wherever it is: `method` of the `kind` that is made of it with `settings`."""

    kind: Callable[..., Any]
    method: Callable[..., Any]
    given: tuple[Any, ...]
    settings: dict[str, Any]

    def on(self, model: Any, tokenizer: Any) -> list[Any]:
        """The answers, one an image."""
        return list(self.method(self.kind(model, tokenizer, **self.settings), *self.given))


@dataclass(frozen=True)
class Opening:
    """How a copy is made: arguments of `open_checkpoint`, then those of `ready`."""

    name: str | Path
    how: dict[str, Any]
    precision: str
    engine: str

    def on(self, name: str) -> tuple[Any, Any]:
        """The model at work on a device, and its vocabulary."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # whoever opened it first was told
            found = open_checkpoint(self.name, **self.how)
        return ready(found.model.to(name), self.precision, self.engine, mapped=True), found.tokenizer


class Replicas:
    """Copies of a model on `devices`, started when they are first needed; they go when this does."""

    def __init__(self, opening: Opening, devices: Sequence[str]) -> None:
        self.opening, self.devices = opening, list(devices)
        self.running: list[_Replica] = []
        self._folder = os.getcwd()  # what relative paths of the opening start from
        self._turn = threading.Lock()  # answers come in the order of questions: one caller at a time
        weakref.finalize(self, _stop, self.running)

    def answers(self, jobs: Iterable[Job]) -> list[Any]:
        """The answers to all jobs, in order. Jobs are taken as far ahead as keeps the devices busy.

        Raises what a job raises of `capfilt.errors`; CheckFailed, which names the device, for anything else. The
        copies are ended then, and started anew by the next call.
        """
        with self._turn:
            try:
                return self._dealt(jobs)
            except BaseException:  # Ctrl-C too: nobody waits for what is under way
                self.close()
                raise

    def _dealt(self, jobs: Iterable[Job]) -> list[Any]:
        if not self.running:
            threads = max(1, usable_cores() // len(self.devices))
            self.running += [_Replica(self.opening, name, threads, self._folder) for name in self.devices]
        found: list[Any] = []
        waiting: deque[_Replica] = deque()
        for job, replica in zip(jobs, cycle(self.running), strict=False):
            if len(waiting) == AHEAD * len(self.running):
                found += waiting.popleft().answer()
            replica.ask(job)
            waiting.append(replica)
        while waiting:
            found += waiting.popleft().answer()
        return found

    def close(self) -> None:
        """Ends the processes, whatever they are at."""
        _stop(self.running)


def _stop(running: list["_Replica"]) -> None:
    for replica in running:
        replica.stop()
    running.clear()


class _Replica:
    """A process, seen from its parent."""

    def __init__(self, opening: Opening, name: str, threads: int, folder: str) -> None:
        home = str(Path(capfilt.__file__).parents[1])  # it runs this very package, installed or not
        paths = os.pathsep.join(filter(None, (home, os.environ.get("PYTHONPATH"))))
        ours, its = socket.socketpair()
        with its:
            self.process = subprocess.Popen(
                (sys.executable, "-m", __name__, str(its.fileno()), name, str(threads)),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                cwd=folder,
                env={**os.environ, "PYTHONPATH": paths},
                process_group=0,  # Ctrl-C is the parent's to answer
                pass_fds=(its.fileno(),),
            )
        self.name, self.line = name, Connection(ours.detach())
        self.ask(opening)

    def ask(self, what: Opening | Job) -> None:
        """What it opens, then one job after another; it reads them while it works."""
        try:
            self.line.send(what)
        except OSError:
            self._died()

    def answer(self) -> list[Any]:
        """To the first job that has none yet."""
        try:
            found = self.line.recv()
        except (EOFError, OSError):
            self._died()
        if isinstance(found, CapfiltError):
            raise found
        return found

    def _died(self) -> NoReturn:
        code = self.process.wait()
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        raise CheckFailed(
            f"device {self.name}: its process ended ({how}), perhaps for lack of memory; name other devices, as in "
            "CAPFILT_DEVICE=cuda:0,cuda:1, or one"
        ) from None

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        self.line.close()


def serve(line: Connection, name: str) -> None:
    """A copy's life: it opens its model, then answers; what cannot be done is answered by the reason."""
    asked: SimpleQueue[Any] = SimpleQueue()
    threading.Thread(target=_listen, args=(line, asked), daemon=True).start()
    opening, opened = asked.get(), None
    while True:
        job = asked.get()
        try:
            opened = opened or opening.on(name)
            answer = job.on(*opened)
        except CapfiltError as error:
            answer = error
        except Exception as error:
            answer = CheckFailed(f"device {name}: {type(error).__name__}: {error}")
        line.send(answer)


def _listen(line: Connection, asked: "SimpleQueue[Any]") -> None:
    with contextlib.suppress(EOFError, OSError):
        while True:
            asked.put(line.recv())
    os._exit(0)  # the parent is gone: at once, whatever is under way


def main() -> None:
    """Runs a copy with the settings that `_Replica` adds to its command."""
    fd, name, threads = sys.argv[1:]
    calm_allocator()
    torch.set_num_threads(int(threads))
    with contextlib.suppress(BrokenPipeError):
        serve(Connection(int(fd)), name)


if __name__ == "__main__":
    main()
