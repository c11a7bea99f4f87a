"""The peers' side of a row in a process of its own, so that each side has the allocator and the threads that its users
have: in one process the peer would run on memory as ours has left it, or the other way round."""

import multiprocessing
import signal
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from capfilt.errors import CapfiltError, CheckFailed


class Other:
    """A process that builds rows of the table and runs their peers when asked to; it ends with this one."""

    def __init__(self, folder: Path, size: str):
        """As `peers.Shelf`, whose checkpoints it reads."""
        context = multiprocessing.get_context("spawn")  # a fork would share our memory and break our threads
        self.line, its = context.Pipe()
        self.process = context.Process(target=_serve, args=(its, folder, size), daemon=True)
        self.process.start()
        its.close()
        self.cpu_s = 0.0  # processor seconds that it has used

    def build(self, name: str) -> None:
        """That row comes next."""
        self._ask("build", name)

    def run(self, peer: str) -> None:
        """The peer does its work once."""
        self._ask("run", peer)

    def result(self, peer: str) -> Any:
        """The same; what comes out."""
        return self._ask("result", peer)

    def close(self) -> None:
        """Ends the process."""
        self.process.terminate()
        self.process.join()

    def _ask(self, *what: str) -> Any:
        try:
            self.line.send(what)
            found, seconds = self.line.recv()
        except (EOFError, OSError):
            self.process.join()
            code = self.process.exitcode
            raise CheckFailed(
                f"bench: the peers' process ended (exit code {code}), perhaps for lack of memory"
            ) from None
        self.cpu_s += seconds
        if isinstance(found, CapfiltError):
            raise found
        return found


def _serve(line: Connection, folder: Path, size: str) -> None:
    from capfilt.recipes.bench import APART
    from capfilt.recipes.bench.peers import Shelf
    from capfilt.recipes.bench.work import Work

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    shelf = Shelf(folder, size, at_work=False)
    work: Work | None = None
    while True:
        verb, name = line.recv()
        began, found = time.process_time(), None
        try:
            if verb == "build":
                work = None
                work = APART[name].build(shelf)
            else:
                assert work is not None
                found = work.peers[name]()
        except CapfiltError as error:
            found = error
        line.send((found if verb == "result" or isinstance(found, CapfiltError) else None, time.process_time() - began))
