"""Work that falls into pieces, on the cores of a CPU: one thread a piece, without the waiting of many threads at one
matrix. 5 to 10% sooner where pieces are large; where each piece would read all weights for a few rows, it is not."""

import functools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

P = TypeVar("P")
T = TypeVar("T")


def each(work: Callable[[P], T], pieces: Sequence[P]) -> list[T]:
    """`work` on each piece, results in order, no gradients. What is left over after even rounds gets all threads."""
    threads = torch.get_num_threads()
    even = len(pieces) - len(pieces) % threads if threads > 1 else 0
    done = list(_pool(threads).map(functools.partial(_alone, work), pieces[:even])) if even else []
    return [*done, *map(work, pieces[even:])]


def _alone(work: Callable[[P], T], piece: P) -> T:
    with torch.inference_mode():  # which is each thread's own
        return work(piece)


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, "capfilt", _settle)


def _settle() -> None:
    torch.get_num_threads()  # a thread's first question takes over what was set last, by whichever thread
    torch.set_num_threads(1)
