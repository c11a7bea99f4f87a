"""A model made ready for use: its matrices in the precision and the layout that this machine multiplies fastest.

The weights of the original are left as they are; norms, embeddings, heads and residuals stay fp32 and are shared.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from capfilt.blocks.attention import CrossAttention
from capfilt.blocks.linear import Linear, Packed, Packed8, Precision, Ready
from capfilt.blocks.med import Med
from capfilt.blocks.vit import PatchStem, Vit
from capfilt.errors import ConfigError
from capfilt.predict.openvino_tower import HINTS, OpenVinoTower, available, gain
from capfilt.runtime import WORTH, matmul_gain
from capfilt.weights.pages import forget
from capfilt.weights.store import Model, hollow

WANTED = ("auto", "fp32", "bf16", "int8")
ENGINES = ("auto", "torch", "openvino")
WIDE = 512  # narrower towers gain nothing from bf16, and round more
AnyModel = TypeVar("AnyModel", bound=Model)


@dataclass(frozen=True)
class Choice:
    """A precision, and why it was taken."""

    precision: Precision
    why: str


def ready(model: AnyModel, precision: str = "auto", engine: str = "torch", mapped: bool = False) -> AnyModel:
    """The same model for use alone, in eval mode, on its own device: it cannot be trained or saved.

    precision: `fp32`; `bf16`: what is multiplied is rounded to it, sums are fp32; `int8`: bytes in the vision tower
        (CPUs only), the text side as `auto`. `auto`: see `choose`.
    engine: of the vision tower: `torch`, `openvino` (an extra, for CPUs), or `auto`, which is OpenVINO where it is
        installed, can do what is asked, and is faster here; trying it takes some seconds.
    mapped: the weights are as a file has them: what was copied from waits there again, and takes no memory.

    Raises ConfigError for a precision or engine that there is not, or not here.
    """
    if engine not in ENGINES:
        raise ConfigError(f"engine={engine!r}: choose from {', '.join(ENGINES)}")
    device = next(model.parameters()).device
    choice = choose(model, precision)
    if precision == "auto" and choice.precision == "fp32" and model.config.vit.width < WIDE:
        model.eval()
        return model
    text: Precision = choose(model, "auto").precision if choice.precision == "int8" else choice.precision
    new: Any = hollow(model.config)
    new.load_state_dict(dict(model.state_dict()), assign=True)
    new.requires_grad_(False)
    dtype = torch.float32 if text == "fp32" else torch.bfloat16  # what int8 answers in
    made = functools.partial(_made, device=device, mapped=mapped, answer=dtype)
    for module in list(new.modules()):
        if isinstance(module, Vit):
            if choice.precision == "int8":  # the first block is dearest to answers (docs/numbers.md, "deviation")
                _fill(module.blocks[0], functools.partial(made, precision=text))
            _fill(module, functools.partial(made, precision=choice.precision))
        if isinstance(module, Med):
            head: Any = module.head
            if head is not None:  # what words are told apart by
                head.dense = made(head.dense.weight, head.dense.bias, precision="fp32")
            _fill(module, functools.partial(made, precision=text))
    new.eval()
    if engine == "openvino" or (engine == "auto" and _openvino_may(device, choice.precision)):
        tower = OpenVinoTower(model.vit.float(), choice.precision)
        if engine == "openvino" or gain(tower, new.vit) > 1:
            new.vit = tower
    return new


def choose(model: Model, precision: str = "auto") -> Choice:
    """The precision that `ready` takes. `auto` is bf16 for wide models where this machine multiplies it faster."""
    device, width = next(model.parameters()).device, model.config.vit.width
    if precision not in WANTED:
        raise ConfigError(f"precision={precision!r}: choose from {', '.join(WANTED)}")
    if precision == "int8" and not (device.type == "cpu" and _packs()):
        raise ConfigError(f"precision='int8' is for CPUs with oneDNN, this is {device.type}; use bf16")
    if precision != "auto":
        return Choice(cast("Precision", precision), "asked for")
    if width < WIDE:
        return Choice("fp32", f"a tower of width {width} is too narrow to gain from bf16")
    if device.type == "cuda":
        able = torch.cuda.is_bf16_supported(including_emulation=False)
        return Choice("bf16", "tensor cores") if able else Choice("fp32", "this GPU has no bf16")
    if device.type != "cpu" or not _packs():
        return Choice("fp32", "nothing faster is known for this device")
    gain = matmul_gain(device, torch.bfloat16)
    why = f"a product in bf16 takes 1/{gain:.1f} of the time of one in fp32"
    return Choice("bf16" if gain > WORTH else "fp32", why)


def engine_of(model: Model) -> str:
    """The engine that runs the vision tower of a model that is ready."""
    return "openvino" if isinstance(model.vit, OpenVinoTower) else "torch"


def _openvino_may(device: torch.device, precision: str) -> bool:
    return device.type == "cpu" and precision in HINTS and available()


def _packs() -> bool:
    return torch.backends.mkldnn.is_available()


def _fill(part: nn.Module, made: Callable[..., nn.Module]) -> None:
    for module in list(part.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, Linear):
                plain = isinstance(module, CrossAttention) and name == "kv"
                setattr(module, name, made(child.weight, child.bias, plain=plain))
        if isinstance(module, PatchStem):
            module.ready = made(module.proj.weight.flatten(1), module.proj.bias)
        if isinstance(module, Med) and module.head is not None:
            module.head.ready = made(module.words.weight, module.head.bias)


def _made(
    weight: Tensor,
    bias: Tensor,
    device: torch.device,
    precision: Precision,
    answer: torch.dtype,
    mapped: bool,
    plain: bool = False,
) -> nn.Module:
    dtype = torch.float32 if precision == "fp32" else torch.bfloat16
    made: nn.Module
    if device.type != "cpu" or not _packs():
        made = Ready(weight, bias, dtype)
    elif precision == "int8":
        made = Packed8(weight, bias, answer)
    else:
        made = Packed(weight, bias, dtype, plain)
    if mapped:
        forget([weight])
    return made
