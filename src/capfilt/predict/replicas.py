"""One model on several devices: a copy in a process of its own for each, images dealt out, results in order.

Processes, not threads: between two words of a caption a device waits for Python, and threads would wait for each other
there. Each opens the checkpoint itself, so only pixels and answers travel.

    with Replicas(partial(predictor, "runs/demo/models/bootstrapped"), everywhere()) as replicas:
        replicas.call("caption", pixels, seeds)
"""

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import torch

from capfilt.errors import CapfiltError, CheckFailed, ConfigError
from capfilt.models.blip import Blip
from capfilt.predict.feeding import parts
from capfilt.predict.predictor import Predictor
from capfilt.predict.ready import ready
from capfilt.runtime import calm_allocator, device, usable_cores
from capfilt.weights.checkpoint import open_checkpoint

CHUNK = 32  # images that a device takes at once
AHEAD = 2  # chunks that wait at a device or are worked on

_here: list[Any] = []  # in a replica's process: what opens it, its device; then what was opened


def everywhere() -> list[str]:
    """All accelerators that torch sees; the one device in use where there are none."""
    return [f"cuda:{i}" for i in range(torch.cuda.device_count())] or [str(device())]


def predictor(name: str, on: str, precision: str = "auto", prompt: str | None = None) -> Predictor:
    """A checkpoint at work on the device `on`. Raises as `open_checkpoint` and `ready`, ConfigError for no Blip."""
    found = open_checkpoint(name)
    if not isinstance(found.model, Blip):
        raise ConfigError(f"{name}: a model of one task; replicas are for those that caption or match")
    return Predictor(ready(found.model.to(on), precision), found.tokenizer, prompt=prompt)


class Replicas:
    """Copies at work. `opening`, given a device, makes one: a function that can be imported, or a partial of one.

    Raises ConfigError for no device. Close it, or use it in a `with`.
    """

    def __init__(self, opening: Callable[[str], Any], devices: Sequence[str], chunk: int = CHUNK) -> None:
        if not devices:
            raise ConfigError("replicas: no device; name at least one, as in devices=['cuda:0']")
        self.devices, self.chunk = list(devices), chunk
        spawn, threads = multiprocessing.get_context("spawn"), max(1, usable_cores() // len(devices))
        self.pools = [ProcessPoolExecutor(1, spawn, _begin, (opening, on, threads)) for on in self.devices]

    def call(self, method: str, *dealt: Any, **same: Any) -> list[Any]:
        """What `method` of one model would answer, as a list.

        dealt: arguments with one item an image (lists, arrays), cut into chunks. same: what every chunk is given.

        Raises what the method raises of `capfilt.errors`; CheckFailed, which names the device, for anything else.
        """
        return [answer for chunk in self._chunks(method, dealt, same) for answer in chunk]

    def _chunks(self, method: str, dealt: tuple[Any, ...], same: dict[str, Any]) -> Iterator[list[Any]]:
        running: deque[tuple[int, Future[list[Any]]]] = deque()
        for part in parts(len(dealt[0]), self.chunk):
            if len(running) == AHEAD * len(self.pools):
                yield self._answer(*running.popleft())
            busy = [sum(at == i and not future.done() for at, future in running) for i in range(len(self.pools))]
            least = busy.index(min(busy))
            running.append((least, self.pools[least].submit(_work, method, [x[part] for x in dealt], same)))
        while running:
            yield self._answer(*running.popleft())

    def _answer(self, at: int, future: "Future[list[Any]]") -> list[Any]:
        try:
            return future.result()
        except BrokenProcessPool:
            raise CheckFailed(
                f"device {self.devices[at]}: its process ended, perhaps for lack of memory; take smaller chunks, or "
                "leave this device out"
            ) from None

    def close(self) -> None:
        """Ends the processes; what waits is not done."""
        for pool in self.pools:
            pool.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> "Replicas":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _begin(opening: Callable[[str], Any], on: str, threads: int) -> None:
    calm_allocator()
    torch.set_num_threads(threads)
    _here[:] = opening, on


def _work(method: str, dealt: list[Any], same: dict[str, Any]) -> list[Any]:
    opening, on, *opened = _here
    try:
        if not opened:  # not when the process begins: what fails here has a reason that can be told
            opened = [opening(on)]
            _here.extend(opened)
        return list(getattr(opened[0], method)(*dealt, **same))
    except CapfiltError:
        raise
    except Exception as error:
        raise CheckFailed(f"device {on}: {type(error).__name__}: {error}") from None
