"""Zero-shot prompts and functions of one's own give numbers an image; what cannot be is said at once."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

from capfilt.clean.scorers import Scorers, parsed
from capfilt.errors import ConfigError

VECTORS = {"a logo": [1.0, 0.0], "a photo": [0.0, 1.0], "a drawing": [-1.0, 0.0]}


def judge():
    """A filter that knows three texts."""
    return SimpleNamespace(
        model=SimpleNamespace(temperature=0.5),
        embed_texts=lambda texts: np.array([VECTORS[text] for text in texts], np.float32),
    )


def brightness(pixels: np.ndarray) -> list[float]:
    return (pixels.mean(axis=(1, 2, 3)) / 255).tolist()


def one_too_few(pixels: np.ndarray) -> list[float]:
    return [0.0] * (len(pixels) - 1)


PIXELS = np.stack([np.full((8, 8, 3), 255, np.uint8), np.zeros((8, 8, 3), np.uint8)])


def test_the_first_prompt_against_the_others():
    found = Scorers(["logo=a logo|a photo|a drawing"], judge())(PIXELS, np.array([[1.0, 0], [0, 1.0]], np.float32))
    assert found[0]["logo"] == pytest.approx(math.exp(2) / (math.exp(2) + 1 + math.exp(-2)), abs=1e-4)
    assert found[1]["logo"] == pytest.approx(1 / (2 + math.exp(2)), abs=1e-4)


def test_a_function_of_ones_own():
    asked = [f"light={__name__}:brightness", "logo=a logo|a photo"]
    found = Scorers(asked, judge())(PIXELS, np.eye(2, dtype=np.float32))
    assert [row["light"] for row in found] == [1.0, 0.0] and set(found[0]) == {"light", "logo"}
    with pytest.raises(ConfigError, match=r"gave \(1,\) numbers for 2 images"):
        Scorers([f"light={__name__}:one_too_few"], judge())(PIXELS, np.eye(2, dtype=np.float32))


@pytest.mark.parametrize("text", ["logo", "logo=", "logo=a logo", "logo=a logo|", "2=a|b", "a b=a|b"])
def test_what_is_no_scorer(text):
    with pytest.raises(ConfigError, match="name=a prompt"):
        parsed(text)


@pytest.mark.parametrize("what", ["no_such_module:f", "math:no_such_function"])
def test_what_cannot_be_imported(what):
    with pytest.raises(ConfigError, match="cannot be imported"):
        Scorers([f"x={what}"], judge())
