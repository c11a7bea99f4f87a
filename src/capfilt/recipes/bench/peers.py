"""Who ours is held against: `transformers`, the straightforward CapFilt script on it, OpenVINO, onnxruntime.

Both sides hold the same random weights; `transformers` saves them, our loader reads them.
"""

import importlib.util
import warnings
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from capfilt.models.blip import Blip
from capfilt.predict.openvino_tower import signal_stack_kept
from capfilt.predict.predictor import Predictor
from capfilt.predict.ready import ready
from capfilt.recipes.bench.work import CPU, CannotRun, late, need
from capfilt.recipes.parity import CLASSES, Kind, peer
from capfilt.weights.checkpoint import open_checkpoint

KEPT = 4  # models in memory at once: CapFilt needs so many
WRITTEN = 20  # ids of a caption; the end is forbidden, so that both sides write as many
HUSHED = 0.1  # what a speaker's random layers add to a word is made so much smaller, or it says one word over and over


class Shelf:
    """Captioner and filter of both sides at any precision, made when first asked for; the last few stay in memory.

    folder: takes the checkpoints. size: of `recipes.parity.SIZES`. device: where both work. at_work: whether ours are
    made ready for use; where only peers run, they are not.
    """

    def __init__(self, folder: Path, size: str = "base", device: torch.device = CPU, at_work: bool = True):
        self.folder, self.size, self.device, self.at_work = folder, size, device, at_work
        self._kept: dict[tuple[str, Kind, str, str], Any] = {}

    def ours(self, kind: Kind, precision: str, engine: str = "torch") -> Predictor:
        """As `capfilt.load` makes them; `auto` may take OpenVINO. Raises CannotRun where the precision is emulated."""
        if self.device.type == "cpu":
            need(precision)

        def make() -> Predictor:
            opened = open_checkpoint(self.checkpoint(kind))
            model = cast(Blip, opened.model).eval().to(self.device)  # of these kinds
            if self.at_work:
                model = ready(model, precision, engine, mapped=True)
            return Predictor(model, opened.tokenizer, prompt="")

        return self._get(("ours", kind, precision, engine), make)

    def theirs(self, kind: Kind, precision: str) -> Callable[[], Any]:
        """Of `transformers`, in eval mode; made when it is first called for."""
        return partial(self._theirs, kind, precision)

    def _theirs(self, kind: Kind, precision: str) -> Any:
        def make() -> nn.Module:
            import transformers

            model = getattr(transformers, CLASSES[kind]).from_pretrained(self.checkpoint(kind)).eval().to(self.device)
            return model.to(dtype(precision))

        return self._get(("theirs", kind, precision, ""), make)

    def checkpoint(self, kind: Kind) -> Path:
        """The folder that both read."""
        try:
            from transformers.utils import logging
        except ImportError:
            raise CannotRun("needs transformers: pip install 'capfilt[dev]'") from None
        logging.disable_progress_bar()
        folder = self.folder / kind
        if not folder.exists():
            model: Any = peer(kind, self.size, folder)
            if kind == "caption":
                for name, p in model.text_decoder.named_parameters():
                    if ".output.dense." in name:
                        p.data.mul_(HUSHED)
                model.save_pretrained(folder)
        return folder

    def _get(self, key: tuple[str, Kind, str, str], make: Callable[[], Any]) -> Any:
        if key not in self._kept and len(self._kept) == KEPT:
            del self._kept[next(iter(self._kept))]
        self._kept[key] = self._kept.pop(key, None) or make()
        return self._kept[key]


def dtype(precision: str) -> torch.dtype:
    """What a peer computes in."""
    return torch.bfloat16 if precision == "bf16" else torch.float32


def transformers_name() -> str:
    """With its version, as a row names it."""
    return f"transformers {version('transformers')}"


@torch.inference_mode()
def their_captions(model: Callable[[], Any], pixels: Tensor, how: str) -> list[list[int]]:
    """The ids behind the start, `greedy`, by `beam3` or as drawn by `nucleus`."""
    asked: dict[str, dict[str, Any]] = {
        "greedy": {"do_sample": False},
        "beam3": {"do_sample": False, "num_beams": 3},
        "nucleus": {"do_sample": True, "top_p": 0.9, "top_k": 50},
    }
    rows = model().generate(pixel_values=pixels, min_new_tokens=WRITTEN, max_new_tokens=WRITTEN, **asked[how])
    return rows[:, 1:].tolist()


@torch.inference_mode()
def their_matches(model: Callable[[], Any], ids: Tensor, seen: Tensor) -> Tensor:
    """Match logits (P, 2) of texts (P, L), each with the tokens (P, N, D) of its image."""
    judge = model()
    states = judge.text_encoder(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        encoder_hidden_states=seen,
        encoder_attention_mask=torch.ones(seen.shape[:2], dtype=torch.long, device=seen.device),
    )
    return judge.itm_head(states.last_hidden_state[:, 0]).float().cpu()


@torch.inference_mode()
def their_capfilt(
    captioner: Callable[[], Any], judge: Callable[[], Any], pixels: Tensor, web: Tensor, end: int
) -> tuple[list[list[int]], Tensor]:
    """The straightforward script: draw a caption, then both texts against the pixels, each through the whole filter.

    web: (B, L) ids of the web texts. → ids written, probabilities of the web texts.
    """
    rows = captioner().generate(
        pixel_values=pixels,
        do_sample=True,
        top_p=0.9,
        top_k=50,
        repetition_penalty=1.1,
        min_new_tokens=WRITTEN,
        max_new_tokens=WRITTEN,
    )
    synthetic = torch.cat((web[:, :1], rows[:, 1:], torch.full_like(rows[:, :1], end)), dim=1)
    logits = [
        judge()(input_ids=ids, pixel_values=pixels, attention_mask=torch.ones_like(ids)).itm_score
        for ids in (web, synthetic)
    ]
    return rows[:, 1:].tolist(), logits[0].float().softmax(dim=-1)[:, 1]


def engines(
    vit: Callable[[], nn.Module], pixels: Tensor, precision: str, folder: Path
) -> tuple[dict[str, Callable[[], Tensor]], dict[str, str]]:
    """Image encoders of other engines on the same weights, for this batch: (name and version → encode, name → why not).

    Raises CannotRun where no engine is left.
    """
    left_out = {}
    for name in ("openvino", "onnxruntime"):
        if (name, precision) not in ENGINES:
            left_out[name] = f"runs no ViT in {precision} on a CPU"
        elif importlib.util.find_spec(name) is None:
            left_out[name] = "is not installed"
    chosen = [name for name, at in ENGINES if at == precision and name not in left_out]
    if not chosen or importlib.util.find_spec("onnx") is None:
        raise CannotRun(f"needs onnx and an engine for {precision}: pip install 'capfilt[dev]'")

    def made(name: str) -> Callable[[], Tensor]:
        path = folder / "vit.onnx"
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # that this exporter is old, and has fixed the sizes: here they are
            torch.onnx.export(_Tokens(vit()), (pixels,), path, dynamo=False, opset_version=18, input_names=["pixels"])
        return ENGINES[name, precision](path, pixels)

    return {f"{name} {version(name)}": late(partial(made, name)) for name in chosen}, left_out


class _Tokens(nn.Module):
    """The tower with pixels for its only argument, as the exporter wants it."""

    def __init__(self, vit: nn.Module):
        super().__init__()
        self.vit = vit

    def forward(self, pixels: Tensor) -> Tensor:
        return self.vit(pixels)


def _openvino(path: Path, pixels: Tensor, hint: str) -> Callable[[], Tensor]:
    import openvino

    settings = {
        "INFERENCE_PRECISION_HINT": hint,
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
    }
    with signal_stack_kept():
        compiled = openvino.Core().compile_model(path, "CPU", settings)
    return lambda: torch.from_numpy(compiled(pixels.numpy())[0])


def _onnxruntime(path: Path, pixels: Tensor) -> Callable[[], Tensor]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda: torch.from_numpy(session.run(None, {"pixels": pixels.numpy()})[0])


ENGINES: dict[tuple[str, str], Callable[[Path, Tensor], Callable[[], Tensor]]] = {
    ("openvino", "fp32"): lambda path, pixels: _openvino(path, pixels, "f32"),
    ("openvino", "bf16"): lambda path, pixels: _openvino(path, pixels, "bf16"),
    ("onnxruntime", "fp32"): _onnxruntime,
}
