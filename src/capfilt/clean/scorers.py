"""Further numbers about an image, a column each: zero-shot by the filter's own vectors, or from a function of yours.

    watermark=a photo with a watermark|a photo        the probability of the first prompt among all
    aesthetic=my_package.scores:aesthetic             a function: pixels (B, H, W, 3) uint8 → B numbers

They decide nothing by themselves: a policy that is told to (`Policy.drop`) drops rows by them.
"""

import importlib
import re
from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float, UInt8

from capfilt.errors import ConfigError
from capfilt.predict.predictor import Predictor

_FUNCTION = re.compile(r"([A-Za-z_][\w.]*):([A-Za-z_]\w*)")
DIGITS = 4


class Scorers:
    """Those that a run asks for, by the filter `judge`. Raises ConfigError for one that cannot be."""

    def __init__(self, asked: Sequence[str], judge: Predictor) -> None:
        self.prompts: dict[str, Float[np.ndarray, "p e"]] = {}
        self.functions: dict[str, Callable[[np.ndarray], Sequence[float]]] = {}
        self.temperature = float(torch.as_tensor(judge.model.temperature).detach())
        for text in asked:
            name, what = parsed(text)
            if isinstance(what, str):
                self.functions[name] = _function(name, what)
            else:
                self.prompts[name] = judge.embed_texts(what)

    def __call__(
        self, pixels: UInt8[np.ndarray, "b h w 3"], vectors: Float[np.ndarray, "b e"]
    ) -> list[dict[str, float]]:
        """Of each image its numbers by name. vectors: unit, of the filter."""
        found = {name: _shares(vectors @ of.T / self.temperature) for name, of in self.prompts.items()}
        for name, function in self.functions.items():
            found[name] = np.asarray(function(pixels), np.float64)
            if found[name].shape != (len(pixels),):
                raise ConfigError(f"scorer {name}: gave {found[name].shape} numbers for {len(pixels)} images")
        return [{name: round(float(of[i]), DIGITS) for name, of in found.items()} for i in range(len(pixels))]


def parsed(text: str) -> tuple[str, str | list[str]]:
    """The name of a scorer, and its prompts or the name of its function. Raises ConfigError for anything else."""
    name, _, what = text.partition("=")
    prompts = [prompt.strip() for prompt in what.split("|")]
    if name.isidentifier() and _FUNCTION.fullmatch(what):
        return name, what
    if not name.isidentifier() or len(prompts) < 2 or not all(prompts):
        raise ConfigError(
            f"scorer {text!r}: write name=a prompt|another, as in 'watermark=a photo with a watermark|a photo', or "
            "name=module:function"
        )
    return name, prompts


def _function(name: str, what: str) -> Callable[[np.ndarray], Sequence[float]]:
    module, _, function = what.partition(":")
    try:
        return getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"scorer {name}: {what} cannot be imported ({error})") from None


def _shares(logits: Float[np.ndarray, "b p"]) -> Float[np.ndarray, "b"]:
    """The share of the first of each row."""
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    return odds[:, 0] / odds.sum(axis=1)
