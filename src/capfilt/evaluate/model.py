"""One model on one collection of clean pairs: retrieval by ITC and with ITM re-rank, captions, their known truth."""

from dataclasses import dataclass, field

import numpy as np

from capfilt.data.collection import Collection
from capfilt.errors import DataError
from capfilt.evaluate.captions import score_captions
from capfilt.evaluate.retrieval import candidates, rerank, retrieval
from capfilt.inputs.images import to_pixels
from capfilt.predict.decode import BEAM, Decoding
from capfilt.predict.predictor import Predictor
from capfilt.progress import Progress


@dataclass(frozen=True)
class Evaluation:
    """What a model reached.

    summary:   name → number. `tr1` ... `ir10` with ITM re-rank, `itc_tr1` ... by cosine alone, caption scores, and in
               the drawn world `truth` (share of stated facts that hold) and `coverage` (share of visible facts
               stated).
    per_query: name → one number an image or text, for paired intervals.
    captions:  what the model wrote for each image.
    text_image: for each text the index of its image: texts of one image hang together, which intervals must know.
    """

    summary: dict[str, float]
    per_query: dict[str, list[float]]
    captions: list[str]
    text_image: list[int] = field(default_factory=list)


def evaluate(predictor: Predictor, test: Collection, decoding: Decoding | None = None, k: int = 64) -> Evaluation:
    """Everything the model's roles allow. `k` candidates a query are re-ranked; `decoding` is BLIP's beam if None."""
    if len(test) < 2:
        raise DataError(f"{len(test)} test image: comparing needs at least 2")
    config = predictor.model.config
    pixels = at_px(np.asarray(test.pictures), config.vit.px)
    summary: dict[str, float] = {}
    each: dict[str, np.ndarray] = {}
    captions: list[str] = []
    owner = np.repeat(np.arange(len(test)), [len(texts) for texts in test.texts])
    with Progress("evaluate", 3) as bar:
        if "read" in config.roles:
            _retrieve(predictor, pixels, test, owner, k if "look" in config.roles else 0, summary, each)
        bar.update(1)
        if "speak" in config.roles:
            captions = [c.text for c in predictor.caption(pixels, range(len(pixels)), decoding or BEAM)]
            bar.update(2)
            _judge(captions, test, summary, each)
        bar.update(3)
    per_query = {name: np.asarray(values, float).tolist() for name, values in each.items()}
    return Evaluation(summary, per_query, captions, owner.tolist())


def at_px(pictures: np.ndarray, px: int) -> np.ndarray:
    """(M, S, S, 3) uint8 at the model's size."""
    if pictures.shape[1:3] == (px, px):
        return pictures
    return np.stack([to_pixels(picture, px) for picture in pictures])


def _retrieve(
    predictor: Predictor, pixels: np.ndarray, test: Collection, owner: np.ndarray, k: int, summary: dict, each: dict
) -> None:
    texts = [t for ts in test.texts for t in ts]
    sim = predictor.embed_images(pixels) @ predictor.embed_texts(texts).T
    by_cosine = retrieval(sim, owner)
    summary |= {f"itc_{name}": value for name, value in by_cosine.summary().items()}
    each |= {f"itc_{name}": hits for name, hits in by_cosine.hits().items()}
    if not k:
        return
    tokens = predictor.encode_images(pixels)
    image_idx, text_idx = np.nonzero(np.logical_or(*candidates(sim, k)))
    logits = np.zeros_like(sim)
    logits[image_idx, text_idx] = predictor.itm_logits(tokens, image_idx, text_idx, texts)
    for_image, for_text = rerank(sim, k, lambda images, asked: logits[images, asked])
    found = retrieval(for_image, owner, for_text)
    summary |= found.summary()
    each |= found.hits()


def _judge(captions: list[str], test: Collection, summary: dict, each: dict) -> None:
    scores = score_captions(captions, test.references)
    summary |= scores.summary()
    each |= dict(scores.per_image)
    if test.judge is None:
        return
    judged = [test.judge(i, caption) for i, caption in enumerate(captions)]
    facts = {"truth": np.array([j.truth for j in judged]), "coverage": np.array([j.coverage for j in judged])}
    summary |= {name: float(values.mean()) for name, values in facts.items()}
    each |= facts
