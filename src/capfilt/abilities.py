"""What a model can do, as protocols: `clean` and `evaluate` ask for these and know no model."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np


@dataclass(frozen=True)
class Caption:
    """One written caption.

    text:   as it reads, specials removed.
    score:  sum of token log-probabilities divided by their number.
    tokens: the token ids written, end token included where it was written.
    """

    text: str
    score: float
    tokens: tuple[int, ...] = ()


@runtime_checkable
class Embedder(Protocol):
    """Images and texts as unit vectors in one space."""

    def embed_images(self, pixels: np.ndarray) -> np.ndarray:
        """pixels: (B, H, W, 3) uint8 → (B, E) float32, unit length."""
        ...

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        """B texts → (B, E) float32, unit length."""
        ...


@runtime_checkable
class Matcher(Protocol):
    """Says how well a text fits an image."""

    def match(self, pixels: np.ndarray, texts: Sequence[Sequence[str]]) -> list[list[tuple[float, float]]]:
        """For image b and each of its texts: (probability of a match in [0, 1], cosine in [-1, 1])."""
        ...


@runtime_checkable
class Captioner(Protocol):
    """Writes captions."""

    def caption(self, pixels: np.ndarray, seeds: Sequence[int]) -> list[Caption]:
        """One caption an image; seeds: one a row, so a caption hangs on its row alone."""
        ...
