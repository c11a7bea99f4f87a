"""A decoding step as one launch: on a GPU its hundreds of small kernels are recorded once and played again."""

import warnings
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

WARM = 2  # calls before recording, in which libraries set themselves up
Work = Callable[[Tensor], Tensor]  # ids (R, 1) → (R, V)


class Recorded:
    """Some work on ids of one shape, which keeps numbers between calls only in tensors that stay where they are.

    On a GPU the third call of as many ids is recorded as a CUDA graph, which later calls play; elsewhere all calls are
    plain ones. What cannot be recorded is worked plainly on, with a warning.
    """

    def __init__(self) -> None:
        self.able = True
        self.forget()

    def forget(self) -> None:
        """Something that the work touches has moved, or the number of its ids changes: recorded anew."""
        self.calls = self.rows = 0
        self.play: Work | None = None

    def __call__(self, work: Work, ids: Int[Tensor, "r 1"]) -> Float[Tensor, "r v"]:
        """`work(ids)`. It is the same work every time, not held here, or nothing would be freed."""
        if self.rows != len(ids):
            self.forget()
            self.rows = len(ids)
        self.calls += 1
        if self.calls > WARM and self.play is None and self.able and records(ids.device):
            try:
                self.play = record(work, ids)
            except RuntimeError as error:
                self.able = False
                warnings.warn(f"a decoding step could not be recorded, so it is slower ({error})", stacklevel=2)
        return (self.play or work)(ids)


def records(device: torch.device) -> bool:
    """Whether steps are recorded there."""
    return device.type == "cuda"


def record(work: Work, ids: Tensor) -> Work:
    """`work` as a CUDA graph, for as many ids. Recording does not run it: the first play does."""
    held, graph = ids.clone(), torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = work(held)

    def play(ids: Tensor) -> Tensor:
        held.copy_(ids)
        graph.replay()
        return out.clone()

    return play
