"""A small Blip with large random weights, the words that it knows, and pictures and texts to ask it about."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from capfilt.blocks.med import Role
from capfilt.inputs.tokenizer import TextTokenizer
from capfilt.models.blip import PRESETS, Blip

TEXTS = [
    *("a red cube", "a small blue ball on a green box", "two cones", "a box", "the ball behind a cone"),
    *("green", "a red ball and a blue cube in a box", "", "cube cube cube cube"),
]


@pytest.fixture(scope="session")
def tokenizer() -> TextTokenizer:
    """The words of TEXTS."""
    return TextTokenizer.train(TEXTS, 64)


def a_model(tokenizer: TextTokenizer, roles: Sequence[Role] = ("read", "look", "speak"), seed: int = 0) -> Blip:
    """Tiny, with weights so large that wrong masks and mixed-up rows show."""
    model = Blip(dataclasses.replace(PRESETS["tiny"].with_words(tokenizer), roles=tuple(roles), queue=0))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim:
                p.normal_(0, 0.25, generator=generator)
    return model


def pictures(count: int, seed: int = 0) -> np.ndarray:
    """(count, 32, 32, 3) of noise."""
    return np.random.default_rng(seed).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)


def ragged(counts: Sequence[int]) -> list[list[str]]:
    """So many texts an image."""
    words = iter(TEXTS * 5)
    return [[next(words) for _ in range(count)] for count in counts]
