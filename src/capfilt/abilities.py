"""What a model can do, as protocols: `clean` and `evaluate` ask for these and know no model."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np


@dataclass(frozen=True)
class Caption:
    """One written caption.

    text:   as it reads, specials removed.
    score:  sum of token log-probabilities divided by their number.
    tokens: the token ids written, end token included where it was written.
    logps:  log-probability of each token.
    error:  why there is no caption, where the image could not be used; then the rest is empty.
    """

    text: str
    score: float
    tokens: tuple[int, ...] = ()
    logps: tuple[float, ...] = field(default=(), repr=False)
    error: str | None = None


@dataclass(frozen=True)
class Match:
    """How well a text fits an image.

    probability: of a match, by the matching head, in [0, 1].
    cosine:      of both vectors, in [-1, 1].
    error:       why there is none, where the image could not be used; then both are NaN.
    """

    probability: float
    cosine: float
    error: str | None = None


@dataclass(frozen=True)
class Answer:
    """One answer to a question about an image.

    confidence: in [0, 1]: the answer's own probability where it was generated; among the candidates judged in full
                where it was chosen.
    score:      its log-probability, summed over its tokens; of a reply the logit that it is right.
    others:     (answer, confidence) of the runners-up, best first.
    error:      why there is none, where the image could not be used; then the rest is empty.
    """

    text: str
    confidence: float
    score: float
    others: tuple[tuple[str, float], ...] = ()
    error: str | None = None


@dataclass(frozen=True)
class Verdict:
    """Whether a statement about images is true.

    probability: that it is, in [0, 1].
    error:       why there is none, where an image could not be used; then it is NaN.
    """

    probability: float
    error: str | None = None

    @property
    def true(self) -> bool:
        """Likelier true than not."""
        return self.probability > 0.5


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
