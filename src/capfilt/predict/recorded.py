"""A decoding step as one launch: on a GPU its hundreds of small kernels are recorded once and played again."""

import warnings
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

WARM = 2  # calls before recording, in which libraries set themselves up
Play = Callable[[], Tensor]


class Recorded:
    """Some work on ids of one shape, which keeps numbers between calls only in tensors that stay where they are.

    On a GPU the third call of as many ids is recorded as a CUDA graph, which later calls play; elsewhere all calls are
    plain ones.
    What cannot be recorded is worked plainly on, with a warning.
    """

    def __init__(self) -> None:
        self.able = True
        self.forget()

    def forget(self) -> None:
        """Something that the work touches has moved, or the shape of its ids changes: recorded anew."""
        self.calls = 0
        self.play: Play | None = None
        self.ids: Tensor | None = None

    def __call__(self, work: Callable[[Tensor], Tensor], ids: Int[Tensor, "r 1"]) -> Float[Tensor, "r v"]:
        """`work(ids)`: (R, 1) → (R, V). It is the same work every time, not held here, or nothing would be freed."""
        if self.ids is not None and self.ids.shape != ids.shape:
            self.forget()
        self.calls += 1
        if self.calls <= WARM or not (self.able and records(ids.device)):
            return work(ids)
        if self.ids is None or self.play is None:
            held = ids.clone()
            try:
                self.play = record(work, held)
            except RuntimeError as error:
                self.able = False
                warnings.warn(f"a decoding step could not be recorded, so it is slower ({error})", stacklevel=2)
                return work(ids)
            self.ids = held
        self.ids.copy_(ids)
        return self.play().clone()


def records(device: torch.device) -> bool:
    """Whether steps are recorded there."""
    return device.type == "cuda"


def record(work: Callable[[Tensor], Tensor], ids: Tensor) -> Play:
    """`work(ids)` as a CUDA graph. Recording does not run it: the first play does."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = work(ids)

    def play() -> Tensor:
        graph.replay()
        return out

    return play
