"""The rows of `bench/results.json`: encode, caption, match, CapFilt, a training step; how each is built, and its goal.

Of the base model at 384 px with random weights. Ours takes uint8 pixels and texts, as a user gives them; the peers get
their tensors ready-made.
"""

from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from capfilt.errors import CheckFailed
from capfilt.inputs.images import normalize
from capfilt.predict.capfilt import CapFilt
from capfilt.predict.decode import Decoding
from capfilt.predict.predictor import Predictor
from capfilt.predict.ready import engine_of
from capfilt.recipes.bench.peers import (
    WRITTEN,
    Shelf,
    dtype,
    engines,
    their_capfilt,
    their_captions,
    their_matches,
    transformers_name,
)
from capfilt.recipes.bench.steps import step
from capfilt.recipes.bench.work import Row, Work, same_numbers, waited
from capfilt.recipes.parity import Kind
from capfilt.runtime import rng
from capfilt.train.speed import vit_macs
from capfilt.weights.checkpoint import open_checkpoint

CAPFILT: tuple[Kind, Kind] = ("caption", "match")
TEXT = 16  # ids of a text, both ends included; nothing is padded
MOST = {"fp32": 1e-3, "bf16": 0.1, "int8": 0.2}  # difference allowed, of the largest value
UNLIKE = {"fp32": 1e-3, "bf16": 0.1, "int8": 0.3, "auto": 0.3}  # difference allowed of a probability


def encode(shelf: Shelf, precision: str, images: int, peer_precision: str | None = None) -> Work:
    """Image tokens, against `transformers` (in the same precision unless told)."""
    ours = shelf.ours("match", precision)
    theirs = shelf.theirs("match", peer_precision or precision)
    pixels = noise(ours, images)
    tensor = normalize(pixels).to(shelf.device, dtype(peer_precision or precision))

    @torch.inference_mode()
    def peer() -> torch.Tensor:
        return theirs().vision_model(tensor).last_hidden_state

    return _encode(ours, pixels, precision, {transformers_name(): peer}, {})


def encode_best(shelf: Shelf, precision: str, images: int) -> Work:
    """Image tokens by the engine that `auto` takes, against the faster of OpenVINO and onnxruntime."""
    ours = shelf.ours("match", precision, "auto")
    pixels = noise(ours, images)

    def plain() -> nn.Module:
        return open_checkpoint(shelf.checkpoint("match")).model.eval().vit

    peers, left_out = engines(plain, normalize(pixels), precision, shelf.folder)
    return _encode(ours, pixels, precision, peers, {"left_out": left_out, "engine": engine_of(ours.model)})


def _encode(ours: Predictor, pixels: np.ndarray, precision: str, peers: dict[str, Any], notes: dict[str, Any]) -> Work:
    where = ours.device
    return Work(
        waited(lambda: ours.see(pixels), where),
        {name: waited(peer, where) for name, peer in peers.items()},
        same_numbers(MOST[precision]),
        {"images": len(pixels), **notes},
        2.0 * vit_macs(ours.model.config.vit, False) * len(pixels),
        precision,
        where,
    )


def caption(shelf: Shelf, precision: str, images: int, how: Literal["greedy", "beam3", "nucleus"]) -> Work:
    """Pixels to captions of 20 ids, which are the same on both sides unless they are drawn."""
    ours, theirs = shelf.ours("caption", precision), shelf.theirs("caption", precision)
    pixels = noise(ours, images)
    tensor = normalize(pixels).to(shelf.device, dtype(precision))
    decoding = Decoding(
        method="beam" if how == "beam3" else how,
        max_length=WRITTEN,
        min_length=WRITTEN,
        count_prompt=False,
        repetition_penalty=1.0,
        length_rule="hf",
    )

    def check(mine: list[list[int]], other: list[list[int]]) -> dict[str, Any]:
        _as_long(mine, other)
        same = sum(a == b for a, b in zip(mine, other, strict=True))
        # One in eight may differ: between words that tie to the last digit the order of a sum decides.
        if how != "nucleus" and precision == "fp32" and images - same > images // 8:
            raise CheckFailed(f"{images - same} of {images} captions are not the peer's, which they must be in fp32")
        return {"same_captions": same, "different_ids": len({i for row in mine for i in row})}

    return Work(
        lambda: [list(c.tokens) for c in ours.caption(pixels, range(images), decoding)],
        {transformers_name(): partial(their_captions, theirs, tensor, how)},
        check,
        {"images": images},
    )


def match(shelf: Shelf, precision: str, images: int, texts: int) -> Work:
    """The match logit of every image with every text, image features given."""
    ours, theirs = shelf.ours("match", precision), shelf.theirs("match", precision)
    words = texts_of_words(texts)
    features = ours.encode_images(noise(ours, images))
    image, text = (x.flatten() for x in np.mgrid[:images, :texts])
    seen = torch.from_numpy(features)[image].to(shelf.device, dtype(precision))
    ids = asking(ours, words)[text].to(shelf.device)
    return Work(
        lambda: torch.from_numpy(ours.itm_logits(features, image, text, words)),
        {transformers_name(): lambda: their_matches(theirs, ids, seen)[:, 1]},
        same_numbers(MOST[precision]),
        {"pairs": len(ids)},
    )


def capfilt(shelf: Shelf, precision: str, images: int = 8, peer_precision: str | None = None) -> Work:
    """A caption of 20 ids drawn for each image by one model; it and a web text judged by another."""
    captioner, judge = (shelf.ours(kind, precision) for kind in CAPFILT)
    writer, reader = (shelf.theirs(kind, peer_precision or precision) for kind in CAPFILT)
    pixels, web = noise(captioner, images), texts_of_words(images)
    tensor = normalize(pixels).to(dtype(peer_precision or precision))
    ids, end = asking(judge, web), judge.model.config.special.sep
    decoding = Decoding(max_length=WRITTEN, min_length=WRITTEN, count_prompt=False)
    both = CapFilt(captioner, judge)

    def ours() -> tuple[list[list[int]], torch.Tensor]:
        found = both(pixels, [[text] for text in web], range(images), decoding)
        return [list(f.captions[0].tokens) for f in found], torch.tensor([f.web[0].probability for f in found])

    def check(mine: Any, other: Any) -> dict[str, Any]:
        _as_long(mine[0], other[0])
        off = float((mine[1] - other[1]).abs().max())
        if not off <= UNLIKE[precision]:
            raise CheckFailed(f"a web text's probability differs by {off:.2g}, more than {UNLIKE[precision]}")
        return {"difference": float(f"{off:.2g}")}

    peers = {f"{transformers_name()}, straightforward script": partial(their_capfilt, writer, reader, tensor, ids, end)}
    return Work(ours, peers, check, {"images": images})


def _as_long(mine: list[list[int]], other: list[list[int]]) -> None:
    lengths = {len(row) for row in (*mine, *other)}
    if lengths != {WRITTEN} or len(mine) != len(other):
        raise CheckFailed(f"captions of {sorted(lengths)} ids; both sides must write {WRITTEN}")


def noise(ours: Predictor, images: int) -> np.ndarray:
    """Noise under a colour of each image's own."""
    px, random = ours.model.config.vit.px, rng("bench", "pixels")
    colours = random.integers(0, 192, (images, 1, 1, 3))
    return (colours + random.integers(0, 64, (images, px, px, 3))).astype(np.uint8)


def texts_of_words(count: int) -> list[str]:
    """Texts of 16 ids, in the words of `recipes.parity`."""
    random = rng("bench", "texts")
    return [" ".join(f"word{i}" for i in random.integers(104, 120, TEXT - 2)) for _ in range(count)]


def asking(ours: Predictor, texts: list[str]) -> torch.Tensor:
    """Their ids (B, L), as the filter is asked."""
    ids = torch.from_numpy(np.stack(ours.tokenizer.encode(texts, 100))).long()
    if ids.shape[1] != TEXT:
        raise CheckFailed(f"texts of {ids.shape[1]} ids, not {TEXT}")
    ids[:, 0] = ours.model.config.special.enc
    return ids


ROWS: dict[str, Row] = {
    "encode-fp32-b1": Row(1.15, partial(encode, precision="fp32", images=1)),
    "encode-fp32-b8": Row(1.5, partial(encode, precision="fp32", images=8), share=0.95),
    "encode-bf16-b1": Row(1.35, partial(encode, precision="bf16", images=1)),
    "encode-bf16-b8": Row(1.2, partial(encode, precision="bf16", images=8), share=0.88),
    "encode-fp32-b1-best": Row(1.0, partial(encode_best, precision="fp32", images=1)),
    "encode-fp32-b8-best": Row(1.0, partial(encode_best, precision="fp32", images=8)),
    "encode-bf16-b1-best": Row(1.0, partial(encode_best, precision="bf16", images=1)),
    "encode-bf16-b8-best": Row(1.0, partial(encode_best, precision="bf16", images=8)),
    "encode-int8-b8": Row(4.5, partial(encode, precision="int8", images=8, peer_precision="fp32")),
    "greedy-fp32-b1": Row(1.7, partial(caption, precision="fp32", images=1, how="greedy")),
    "greedy-fp32-b8": Row(1.9, partial(caption, precision="fp32", images=8, how="greedy")),
    "beam3-fp32-b1": Row(2.9, partial(caption, precision="fp32", images=1, how="beam3")),
    "beam3-fp32-b8": Row(2.6, partial(caption, precision="fp32", images=8, how="beam3")),
    "greedy-bf16-b1": Row(1.6, partial(caption, precision="bf16", images=1, how="greedy")),
    "greedy-bf16-b8": Row(1.9, partial(caption, precision="bf16", images=8, how="greedy")),
    "beam3-bf16-b1": Row(2.2, partial(caption, precision="bf16", images=1, how="beam3")),
    "beam3-bf16-b8": Row(2.6, partial(caption, precision="bf16", images=8, how="beam3")),
    "match-1x16-fp32": Row(6.5, partial(match, precision="fp32", images=1, texts=16)),
    "match-16x1-fp32": Row(3.6, partial(match, precision="fp32", images=16, texts=1)),
    "match-1x16-bf16": Row(5.0, partial(match, precision="bf16", images=1, texts=16)),
    "match-16x1-bf16": Row(3.2, partial(match, precision="bf16", images=16, texts=1)),
    "capfilt-bf16": Row(2.3, partial(capfilt, precision="bf16")),
    "capfilt-fp32": Row(2.6, partial(capfilt, precision="fp32")),
    "capfilt-default": Row(5.0, partial(capfilt, precision="auto", peer_precision="fp32")),
    "capfilt-int8": Row(8.0, partial(capfilt, precision="int8", peer_precision="fp32")),
    "step-base-fp32": Row(1.5, partial(step, preset="base", size=4, precision="fp32")),
    "step-base-bf16": Row(1.5, partial(step, preset="base", size=4, precision="bf16")),
    "step-demo-fp32": Row(1.7, partial(step, preset="demo", size=64, precision="fp32")),
}
