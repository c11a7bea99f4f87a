"""The image tower through OpenVINO (extra `openvino`): the same numbers, on many CPUs a tenth sooner in bf16."""

import contextlib
import ctypes
import importlib.util
import time
import warnings
from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor, nn

from capfilt.blocks.vit import Vit
from capfilt.errors import ConfigError

HINTS = {"fp32": "f32", "bf16": "bf16"}


class OpenVinoTower(nn.Module):
    """A `Vit` for use alone on a CPU: pixels in, tokens in fp32 out."""

    def __init__(self, vit: Vit, precision: str):
        """vit: as it was trained, on the CPU. precision: `fp32` or `bf16`.

        Raises ConfigError without the package, and for another precision.
        """
        super().__init__()
        try:
            import openvino
        except ImportError:
            raise ConfigError("engine='openvino' needs OpenVINO: pip install 'capfilt[openvino]'") from None
        if precision not in HINTS:
            raise ConfigError(f"engine='openvino' works in {' or '.join(HINTS)}, not in {precision}; take 'torch'")
        self.config = vit.config
        px = vit.config.px
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # that tracing fixes what is fixed
            graph = openvino.convert_model(
                vit, example_input=torch.zeros(1, 3, px, px), input=[openvino.PartialShape([-1, 3, px, px])]
            )
        hints = {
            "INFERENCE_PRECISION_HINT": HINTS[precision],
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "NUM_STREAMS": 1,
        }
        with signal_stack_kept():
            self.run = openvino.compile_model(graph, "CPU", hints)

    def forward(self, pixels: Float[Tensor, "b 3 h w"], cls_only: bool = False) -> Float[Tensor, "b m d"]:
        """As `Vit`; [CLS] alone is as dear as all."""
        tokens = torch.from_numpy(self.run(pixels.contiguous().numpy())[0])
        return tokens[:, :1] if cls_only else tokens


@contextlib.contextmanager
def signal_stack_kept() -> Iterator[None]:
    """OpenVINO gives signals a stack of its own while a model lives; of two models, the one that goes first takes the
    other's along, and the next signal (Ctrl-C) is a segmentation fault. Python's signals need none."""
    try:
        sigaltstack = ctypes.CDLL(None).sigaltstack
    except (OSError, AttributeError):  # not a system that has them
        yield
        return
    before = _Stack()
    sigaltstack(None, ctypes.byref(before))
    try:
        yield
    finally:
        sigaltstack(ctypes.byref(before), None)


class _Stack(ctypes.Structure):
    """`stack_t` of <signal.h>, as Linux has it."""

    _fields_ = (("address", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


def available() -> bool:
    """Whether the package is installed."""
    return importlib.util.find_spec("openvino") is not None


@torch.inference_mode()
def gain(other: OpenVinoTower, own: nn.Module) -> float:
    """How many times sooner `other` is done with an image than `own`: the best of three, by turns."""
    pixels = torch.zeros(1, 3, other.config.px, other.config.px)
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(4):
        for tower, times in ((own, seconds[0]), (other, seconds[1])):
            began = time.perf_counter()
            tower(pixels)
            times.append(time.perf_counter() - began)
    return min(seconds[0][1:]) / min(seconds[1][1:])
