"""What this installation is and can do, and how fast it works: what `capfilt doctor` prints.

`speed` takes less than a minute on two cores with a model of base size and random weights, which is as fast as a
trained one.
"""

import dataclasses
import importlib.util
import os
import platform
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from capfilt import __version__
from capfilt.blocks.med import SpecialIds
from capfilt.errors import ConfigError
from capfilt.inputs.tokenizer import TextTokenizer
from capfilt.models.blip import PRESETS, Blip
from capfilt.predict.decode import Decoding
from capfilt.predict.predictor import Predictor
from capfilt.predict.ready import engine_of
from capfilt.predict.recorded import records
from capfilt.predict.use import Model, load
from capfilt.recipes.bench.work import DTYPES, CannotRun, need
from capfilt.runtime import allocator, device, machine, matmul_speed, rng, usable_cores
from capfilt.train.speed import vit_macs

EXTRAS: dict[str, tuple[tuple[str, ...], str]] = {  # name → what it brings, and what for
    "onnx": (("onnx", "onnxruntime"), "capfilt export"),
    "openvino": (("openvino",), "a faster image tower on many CPUs"),
    "video": (("av",), "clips"),
    "metrics": (("pycocoevalcap",), "METEOR and SPICE"),
    "dev": (("transformers", "pytest"), "tests and capfilt bench"),
}
SIDE = 384  # px of base and large
FEW, MANY = 4, 8  # images at once: written and matched; encoded
WRITTEN = 20  # ids of a caption


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. state: `note` is worth a thought, `missing` can be installed."""

    name: str
    state: Literal["ok", "missing", "note"]
    told: str


def findings() -> list[Finding]:
    """The installation: versions, extras, device, memory, cores, instructions, allocator, room for checkpoints."""
    where, here = device(), machine()
    cores, threads = usable_cores(), torch.get_num_threads()
    of = f"{threads} threads on {cores} usable cores of {here['cores']}"
    found = [
        Finding("capfilt", "ok", f"{__version__} on Python {here['python']}, torch {here['torch']}"),
        *(_extra(name, *about) for name, about in EXTRAS.items()),
        Finding("device", "ok", f"{where}: {here['gpu'] or here['cpu']}"),
        Finding("memory", "ok", f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.1f} GiB"),
        Finding("cores", "ok" if threads <= cores else "note", of + "; set OMP_NUM_THREADS" * (threads > cores)),
    ]
    isa = ", ".join(here["isa"])
    found.append(Finding("instructions", "ok" if isa else "note", isa or f"none known to help ({platform.machine()})"))
    found.append(Finding("allocator", "ok", allocator()))
    return [*found, _room()]


def _extra(name: str, packages: tuple[str, ...], use: str) -> Finding:
    lacking = [package for package in packages if importlib.util.find_spec(package) is None]
    if lacking:
        return Finding(name, "missing", f"for {use}: pip install 'capfilt[{name}]' ({', '.join(lacking)})")
    return Finding(name, "ok", f"for {use}: " + ", ".join(f"{package} {_version(package)}" for package in packages))


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # a package of another name than its module
        return "present"


def _room() -> Finding:
    """A base checkpoint takes a GB, a large one two."""
    from huggingface_hub.constants import HF_HUB_CACHE

    cache = Path(HF_HUB_CACHE)
    free = shutil.disk_usage(next(p for p in (cache, *cache.parents) if p.exists())).free / 1e9
    return Finding("cache", "ok" if free > 5 else "note", f"{cache}: {free:.1f} GB free")


def speed(model: str | None = None, size: str = "base", px: int | None = None) -> dict[str, Any]:
    """How the model works here and how fast: images a second, and the share of the machine's limit in encoding.

    model: a checkpoint; without, random weights of the preset `size`. px: 384 unless given; a checkpoint's or a smaller
    preset's own.

    Raises ConfigError for an unknown size or a model of one task alone, and the errors of `predict.use.load`.
    """
    loaded = load(model, px=px) if model else _random(size, px)
    if not isinstance(loaded.model, Blip):
        raise ConfigError(f"{model}: a model of one task; doctor times those that caption or match")
    predictor = Predictor(loaded.at_work, loaded.tokenizer, prompt="")
    config, where = loaded.at_work.config, device()
    limits = {name: matmul_speed(where, dtype) for name, dtype in DTYPES.items() if _multiplies(where, name)}
    pixels = rng("doctor").integers(0, 256, (MANY, config.vit.px, config.vit.px, 3), np.uint8)
    rates = _rates(predictor, pixels)
    flop = 2.0 * vit_macs(config.vit, False)
    precision = loaded.precision.precision
    return {
        "model": model or f"{size}, random weights",
        "px": config.vit.px,
        "device": str(where),
        "precision": precision,
        "why": loaded.precision.why,
        "engine": engine_of(loaded.at_work),
        "compiled": _compiled(loaded, where),
        "threads": torch.get_num_threads(),
        "usable_cores": usable_cores(),
        "allocator": allocator(),
        "limit_gflops": {name: round(found / 1e9, 1) for name, found in limits.items()},
        "images_per_s": {name: round(rate, 3) for name, rate in rates.items()},
        "share_of_limit": {
            name: round(rate * flop / limits[precision], 3) for name, rate in rates.items() if "encode" in name
        },
    }


def _compiled(loaded: Model, where: torch.device) -> str:
    """What does not run operation by operation."""
    parts = ["the image tower by OpenVINO"] * (engine_of(loaded.at_work) == "openvino")
    parts += ["decoding steps as CUDA graphs"] * records(where)
    return ", ".join(parts) or "nothing"


def _random(size: str, px: int | None) -> Model:
    """All roles, and a vocabulary of a few words in the full word table."""
    if size not in PRESETS:
        raise ConfigError(f"size {size!r} is not one of {', '.join(PRESETS)}")
    preset = PRESETS[size]
    words = TextTokenizer.train([f"word{i}" for i in range(20)], 60)
    vit = dataclasses.replace(preset.vit, px=px or (SIDE if size in ("base", "large") else preset.vit.px))
    torch.manual_seed(0)
    model = Blip(dataclasses.replace(preset, vit=vit, special=SpecialIds(**words.marks), queue=0))
    return Model(model.to(device()).eval(), words, engine=os.environ.get("CAPFILT_ENGINE", "auto"))


def _multiplies(where: torch.device, precision: str) -> bool:
    """Whether that precision is worth timing here: a CPU without the instructions takes minutes."""
    if where.type != "cpu":
        return precision != "int8"
    try:
        need(precision)
    except CannotRun:
        return False
    return True


def _rates(predictor: Predictor, pixels: np.ndarray) -> dict[str, float]:
    """What is done → images a second; what the model's roles do not allow is left out."""
    roles, shown = set(predictor.model.config.roles), pixels[:FEW]
    texts = [["word1 word2 word3 word4"] * FEW] * FEW
    works: dict[str, tuple[Callable[[np.ndarray], object], np.ndarray]] = {
        "encode, 1 image": (predictor.encode_images, pixels[:1]),
        f"encode, {MANY} images": (predictor.encode_images, pixels),
    }
    if "speak" in roles:
        works["caption, greedy"] = (_writing(predictor, Decoding(method="greedy")), shown)
        works["caption, beam 3"] = (_writing(predictor, Decoding(method="beam", beams=3)), shown)
    if roles >= {"read", "look"}:
        works[f"match, {FEW} texts an image"] = (lambda some: predictor.match(some, texts[: len(some)]), shown)
    rates = {}
    for name, (work, some) in works.items():
        work(some[:1])  # warm
        began = time.perf_counter()
        work(some)
        rates[name] = len(some) / (time.perf_counter() - began)
    return rates


def _writing(predictor: Predictor, way: Decoding) -> Callable[[np.ndarray], object]:
    """Captions of one length, whatever the weights."""
    decoding = dataclasses.replace(way, max_length=WRITTEN, min_length=WRITTEN, count_prompt=False)
    return lambda pixels: predictor.caption(pixels, range(len(pixels)), decoding)
