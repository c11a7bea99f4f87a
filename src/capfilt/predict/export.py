"""A Blip as ONNX files, each run and compared with torch before it counts as written (extra `onnx`).

| file | takes | gives |
|---|---|---|
| image_encoder | pixels (B, 3, px, px), normalised | image (B, N, D); image_vec (B, E) if the model reads |
| text_encoder | ids (B, L) from [CLS] to [SEP], mask (B, L) | text_vec (B, E) |
| matcher | ids, mask as above, image (B, N, D) | logits (B, 2) of no match, match; [ENC] is put in inside |
| projector | image (B, N, D) | keys, values (layers, B, H, N, d) of what a speaker sees |
| speaker | ids (B, 1), keys, values, past_keys, past_values (.., S, d) | logits (B, V), new_keys, new_values |

A text starts with S = 0 and [DEC]; a prompt is fed id by id; new_keys and new_values (S + 1) are the next step's past.
Rows that share an image each bring its keys and values. B, L and S are free, L and S + 1 up to the model's positions.
`onnx.json` says all this for the files at hand.
"""

import copy
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from capfilt import __version__
from capfilt.blocks.attention import KeysValues
from capfilt.config import to_dict
from capfilt.errors import CheckFailed, ConfigError
from capfilt.files import atomic, write_json
from capfilt.inputs.images import MEAN, STD
from capfilt.inputs.tokenizer import TextTokenizer
from capfilt.models.blip import Blip
from capfilt.runtime import generator

OPSET = 18
TOLERANCE = 1e-4  # of the largest value of an output, or of 1 where all are smaller
TRACED, TRIED = (2, 5), ((1, 1), (3, 4), (5, 9))  # (rows, ids); the files must hold for sizes they were not made with

Axes = dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class Part:
    """One file: what it computes, its axes (a letter is free), and inputs for given rows and ids."""

    module: nn.Module
    takes: Axes
    gives: Axes
    sample: Callable[[int, int], tuple[Tensor, ...]]


class ImageEncoder(nn.Module):
    """Pixels → tokens, and the unit vector where there is one."""

    def __init__(self, model: Blip):
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, px, px) → (B, N, D), (B, E)."""
        image = self.model.vit(pixels)
        return (image, self.model.image_vec(image)) if "read" in self.model.config.roles else (image,)


class TextEncoder(nn.Module):
    """Texts → unit vectors."""

    def __init__(self, model: Blip):
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """(B, L) → (B, E)."""
        return self.model.text_vec(ids, mask)


class Matcher(nn.Module):
    """Text i against image i."""

    def __init__(self, model: Blip):
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor, mask: Tensor, image: Tensor) -> Tensor:
        """→ (B, 2)."""
        return self.model.match_logits(ids, mask, self.model.text.project(image))


class Projector(nn.Module):
    """Image tokens → keys and values of every layer."""

    def __init__(self, model: Blip):
        super().__init__()
        self.text = model.text

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """→ (layers, B, H, N, d) twice."""
        keys, values = zip(*self.text.project(image), strict=True)
        return torch.stack(keys), torch.stack(values)


class Speaker(nn.Module):
    """One id more, and the logits of the next."""

    def __init__(self, model: Blip):
        super().__init__()
        self.text = model.text

    def forward(
        self, ids: Tensor, keys: Tensor, values: Tensor, past_keys: Tensor, past_values: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """→ (B, V), and the pasts (layers, B, H, S + 1, d)."""
        past = _Past(past_keys, past_values)
        states = self.text.speak_on(ids, list(zip(keys, values, strict=True)), past)
        new_keys, new_values = zip(*past.grown, strict=True)
        return self.text.word_logits(states[:, -1]), torch.stack(new_keys), torch.stack(new_values)


class _Past:
    """One text a row, its past handed in and handed out grown."""

    bias: Tensor | None = None

    def __init__(self, keys: Tensor, values: Tensor):
        self.keys, self.values, self.images, self.length = keys, values, keys.shape[1], keys.shape[3]
        self.grown: list[KeysValues] = []

    def open(self, rows: int, length: int) -> None:
        pass

    def add(self, layer: int, keys: Tensor, values: Tensor) -> KeysValues:
        self.grown.append((torch.cat((self.keys[layer], keys), dim=2), torch.cat((self.values[layer], values), dim=2)))
        return self.grown[-1]

    def close(self) -> None:
        pass


def export_onnx(model: Blip, tokenizer: TextTokenizer, folder: Path) -> dict[str, Any]:
    """Writes every part that the model's roles allow, `tokenizer.json`, and last `onnx.json`, which is returned.

    Under `parts` it gives for each file its inputs and outputs and `difference`: the largest one from torch on random
    inputs of other sizes, in units of the output's largest value (or of 1).

    Raises ConfigError without the packages or for a histogram stem, CheckFailed where a file differs by more than
    TOLERANCE.
    """
    try:
        import onnx  # noqa: F401  # torch writes with it
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise ConfigError(f"export needs onnx and onnxruntime ({error}): pip install 'capfilt[onnx]'") from None
    folder, config = Path(folder), model.config
    if config.vit.stem == "histogram":
        raise ConfigError(
            "export: stem='histogram' counts directions of edges, and where a patch is flat ONNX has none (0/0); "
            "export a model with stem='linear' or 'conv'"
        )
    about: dict[str, Any] = {
        "capfilt": __version__,
        "opset": OPSET,
        "px": config.vit.px,
        "mean": MEAN,
        "std": STD,
        "special": to_dict(config.special),
        "parts": {},
    }
    for name, part in parts(copy.deepcopy(model).float().cpu().eval()).items():
        path = folder / f"{name}.onnx"
        atomic(path, partial(_write, part))
        about["parts"][name] = {
            "file": path.name,
            "takes": part.takes,
            "gives": part.gives,
            "difference": _checked(part, path),
        }
    tokenizer.save(folder)
    write_json(folder / "onnx.json", about)
    return about


def parts(model: Blip) -> Mapping[str, Part]:
    """The files that this model's roles make."""
    vit, text, roles = model.config.vit, model.config.text, model.config.roles
    image = ("b", str(vit.tokens), str(vit.width))
    seen, past, grown = (
        (str(text.depth), "b", str(text.heads), length, str(text.width // text.heads))
        for length in (str(vit.tokens), "s", "s + 1")
    )
    rows: Axes = {"ids": ("b", "l"), "mask": ("b", "l")}
    vec = ("b", str(model.config.embed))
    random = generator("export")

    def draw(axes: tuple[str, ...], b: int, s: int = 0) -> Tensor:
        free = {"b": b, "s": s}
        return torch.randn([free[a] if a in free else int(a) for a in axes], generator=random)

    def words(b: int, length: int) -> tuple[Tensor, Tensor]:
        lengths = torch.randint(1, length + 1, (b, 1), generator=random)
        ids = torch.randint(0, text.vocab, (b, length), generator=random)
        return ids, (torch.arange(length) < lengths).long()

    pixels = ("b", "3", str(vit.px), str(vit.px))
    encoded: Axes = {"image": image, "image_vec": vec} if "read" in roles else {"image": image}
    found = {"image_encoder": Part(ImageEncoder(model), {"pixels": pixels}, encoded, lambda b, _: (draw(pixels, b),))}
    if "read" in roles:
        found["text_encoder"] = Part(TextEncoder(model), rows, {"text_vec": vec}, words)
    if "look" in roles:
        takes = {**rows, "image": image}
        found["matcher"] = Part(
            Matcher(model), takes, {"logits": ("b", "2")}, lambda b, length: (*words(b, length), draw(image, b))
        )
    if "speak" in roles:
        gives: Axes = {"keys": seen, "values": seen}
        found["projector"] = Part(Projector(model), {"image": image}, gives, lambda b, _: (draw(image, b),))
        takes = {"ids": ("b", "1"), **gives, "past_keys": past, "past_values": past}
        spoken = {"logits": ("b", str(text.vocab)), "new_keys": grown, "new_values": grown}

        def step(b: int, length: int) -> tuple[Tensor, ...]:
            ids, _ = words(b, 1)
            return ids, *(draw(axes, b, length - 1) for axes in (seen, seen, past, past))

        found["speaker"] = Part(Speaker(model), takes, spoken, step)
    return found


def _write(part: Part, path: Path) -> None:
    free = {name: {i: a for i, a in enumerate(axes) if not a.isdigit()} for name, axes in part.takes.items()}
    free |= {name: {i: a for i, a in enumerate(axes) if not a.isdigit()} for name, axes in part.gives.items()}
    with warnings.catch_warnings(), torch.no_grad():
        # That the tracing exporter is old, and may have fixed a size: it needs two packages less than the new one,
        # and every file is tried at other sizes.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            part.module,
            part.sample(*TRACED),
            path,
            dynamo=False,
            opset_version=OPSET,
            input_names=list(part.takes),
            output_names=list(part.gives),
            dynamic_axes=free,
        )


def _checked(part: Part, path: Path) -> float:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    worst = 0.0
    for rows, length in TRIED:
        given = part.sample(rows, length)
        with torch.no_grad():
            wanted = part.module(*given)
        feed = {name: x.numpy() for name, x in zip(part.takes, given, strict=True)}
        try:
            got = session.run(list(part.gives), feed)
        except Exception as error:  # onnxruntime has no exceptions that can be named
            raise CheckFailed(f"{path.name}: does not run with {rows} rows and {length} ids: {error}") from None
        for name, x, want in zip(part.gives, got, wanted if isinstance(wanted, tuple) else (wanted,), strict=True):
            worst = max(worst, _difference(f"{path.name}: {name}", x, want.numpy()))
    if not worst <= TOLERANCE:
        raise CheckFailed(f"{path.name}: differs from torch by {worst:.1e} of its largest value, more than {TOLERANCE}")
    return worst


def _difference(name: str, got: np.ndarray, want: np.ndarray) -> float:
    if got.shape != want.shape:
        raise CheckFailed(f"{name} has shape {got.shape}, torch gives {want.shape}")
    return float(np.abs(got - want).max() / max(1.0, np.abs(want).max()))
