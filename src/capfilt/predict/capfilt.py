"""CapFilt (arXiv 2201.12086, §3.3) as one call: a captioner writes about images, a filter judges web and written texts.

Shapes: B images of (H, W, 3) or clips of F such frames.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from capfilt.abilities import Caption, Match
from capfilt.errors import ConfigError
from capfilt.predict.decode import NUCLEUS, Decoding
from capfilt.predict.feeding import Pixels, check_texts, parts
from capfilt.predict.predictor import Predictor, check_seeds, frames_of

AHEAD = 4  # times as many images are encoded as are captioned at once, so that they can come and go


@dataclass(frozen=True)
class Judged:
    """What there is to decide about one image.

    captions:  its synthetic texts, as `Predictor.captions` gives them.
    web:       how well its web texts fit, in their order.
    synthetic: how well `captions` fit; one that could not be written has its error here too.
    vector:    the filter's unit vector of the image, (E,).
    """

    captions: list[Caption]
    web: list[Match]
    synthetic: list[Match]
    vector: np.ndarray = field(repr=False)


class CapFilt:
    """A captioner and a filter at work on the same images.

    Each image is encoded once for both of the filter's texts, which are judged in one pass; where both models have the
    same image tower, it is encoded once for all. That is looked at here, not again: do not train one of them meanwhile.

    Raises ConfigError for models without the roles, or of different image sizes.
    """

    def __init__(self, captioner: Predictor, judge: Predictor) -> None:
        captioner.need("speak")
        judge.need("read", "look")
        sizes = captioner.model.config.vit.px, judge.model.config.vit.px
        if len(set(sizes)) > 1:
            raise ConfigError(
                f"the captioner sees images of {sizes[0]} px and the filter of {sizes[1]}; take two models of one size"
            )
        self.captioner, self.judge = captioner, judge
        self.shared = same(captioner.model.vit, judge.model.vit)

    def __call__(
        self,
        pixels: Pixels,
        web: Sequence[Sequence[str]],
        seeds: Sequence[int],
        decoding: Decoding = NUCLEUS,
        n: int = 1,
        least: float | None = None,
    ) -> list[Judged]:
        """Up to `n` captions of each image, and how well they and its web texts fit. seeds: one an image.

        least: a text whose cosine lies below is not looked at closer; its probability is NaN.
        """
        check_texts(web, len(pixels))
        check_seeds(seeds, len(pixels))
        out: list[Judged] = []
        for part in parts(len(pixels), AHEAD * self.captioner.images_at_once(1, frames_of(pixels))):
            image = self.captioner.see(pixels[part])
            captions = self.captioner.captions(image, seeds[part], decoding, n)
            if not self.shared:
                image = self.judge.see(pixels[part])
            texts = [[*ts, *(c.text for c in cs)] for ts, cs in zip(web[part], captions, strict=True)]
            found = self._match(image, texts, least), self.judge.vectors(image)
            for ts, cs, pairs, vector in zip(web[part], captions, *found, strict=True):
                judged = [Match(*pair) for pair in pairs]
                out.append(Judged(cs, judged[: len(ts)], list(map(_unless_failed, judged[len(ts) :], cs)), vector))
        return out

    def _match(self, image: Tensor, texts: list[list[str]], least: float | None) -> list[list[tuple[float, float]]]:
        if least is None:
            return self.judge.match(image, texts)
        cosines = self.judge.cosines(image, texts)
        close = [[t for t, c in zip(*of, strict=True) if c >= least] for of in zip(texts, cosines, strict=True)]
        found = [iter(pairs) for pairs in self.judge.match(image, close)]
        return [
            [next(pairs) if c >= least else (math.nan, c) for c in cs] for pairs, cs in zip(found, cosines, strict=True)
        ]


def _unless_failed(match: Match, caption: Caption) -> Match:
    return match if caption.error is None else Match(math.nan, math.nan, caption.error)


def same(one: nn.Module, other: nn.Module) -> bool:
    """Whether two modules are one, or hold equal numbers in equal ways and so give equal answers."""
    if one is other:
        return True
    mine, theirs = list(one.modules()), list(other.modules())
    return len(mine) == len(theirs) and all(map(_alike, mine, theirs))


def _alike(one: nn.Module, other: nn.Module) -> bool:
    a, b = _held(one), _held(other)
    return type(one) is type(other) and a.keys() == b.keys() and all(_equal(a[name], b[name]) for name in a)


def _held(module: nn.Module) -> dict[str, Any]:
    """What a module itself holds: tensors, registered or not, and settings."""
    own = {name: held for name, held in vars(module).items() if not name.startswith("_")}
    del own["training"]
    return {**own, **module._parameters, **module._buffers}


def _equal(a: Any, b: Any) -> bool:
    if not (isinstance(a, Tensor) and isinstance(b, Tensor)):
        return a is b or (a == b) is True
    if (a.shape, a.dtype, a.device, a.layout) != (b.shape, b.dtype, b.device, b.layout):
        return False
    if a.layout != torch.strided:  # as oneDNN lays it out, which cannot be compared
        a, b = a.to_dense(), b.to_dense()
    return torch.equal(a, b)
