"""One Blip on one test set: retrieval by ITC and with ITM re-rank, captions, and in the drawn world their truth.

Pictures may be clips; they may be a mapped file. A block of them is in memory at a time.

Shapes: I images of (S, S, 3), or clips of F such frames; T texts.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float

from capfilt.data.collection import Collection
from capfilt.data.table import Pictures
from capfilt.errors import DataError
from capfilt.evaluate.captions import score_captions
from capfilt.evaluate.retrieval import Retrieval, candidates, rerank, retrieval
from capfilt.inputs.images import to_pixels
from capfilt.predict.decode import BEAM, Decoding
from capfilt.predict.predictor import Predictor
from capfilt.progress import Progress

AT_ONCE = 256  # images in memory, with their tokens where they are matched: 0.6 GB of a large tower at 384 px


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


def evaluate(
    predictor: Predictor, test: Collection, decoding: Decoding | None = None, k: int = 64, itc: float | None = 1.0
) -> Evaluation:
    """Everything the model's roles allow. `decoding` is BLIP's beam if None; k and itc as in `retrieve`."""
    if len(test) < 2:
        raise DataError(f"{len(test)} test image: comparing needs at least 2")
    roles = predictor.model.config.roles
    summary: dict[str, float] = {}
    each: dict[str, np.ndarray] = {}
    captions: list[str] = []
    if "read" in roles:
        for before, found in retrieve(predictor, test.pictures, test.texts, k, itc).items():
            summary |= {before + name: value for name, value in found.summary().items()}
            each |= {before + name: hits for name, hits in found.hits().items()}
    if "speak" in roles:
        captions = write_captions(predictor, test.pictures, decoding or BEAM)
        _judge(captions, test, summary, each)
    per_query = {name: np.asarray(values, float).tolist() for name, values in each.items()}
    return Evaluation(summary, per_query, captions, _owners(test.texts).tolist())


def retrieve(
    predictor: Predictor,
    pictures: Pictures,
    texts: Sequence[Sequence[str]],
    k: int = 64,
    itc: float | None = 1.0,
) -> dict[str, Retrieval]:
    """Recall both ways: under `itc_` by cosine alone; under "" with the k best re-ranked, where the model can match.

    texts: for each image its captions, at least one.
    itc: as `weight`.
    """
    owner, flat = _owners(texts), [text for of_image in texts for text in of_image]
    sim = cosines(predictor, pictures, flat)
    found = {"itc_": retrieval(sim, owner)}
    if k and "look" in predictor.model.config.roles:
        logits = match_logits(predictor, pictures, flat, np.logical_or(*candidates(sim, k)))
        for_image, for_text = rerank(sim, k, lambda images, asked: logits[images, asked], weight(predictor, itc))
        found[""] = retrieval(for_image, owner, for_text)
    return found


def weight(predictor: Predictor, itc: float | None) -> float:
    """What the cosine counts in `rerank`; one over the model's temperature if None."""
    return 1 / predictor.model.temperature.item() if itc is None else itc


def cosines(predictor: Predictor, pictures: Pictures, texts: Sequence[str]) -> Float[np.ndarray, "i t"]:
    """Cosine of every image with every text."""
    px = predictor.model.config.vit.px
    image_vec = [predictor.embed_images(shown) for _, shown in blocks("embedding", pictures, px)]
    return np.concatenate(image_vec) @ predictor.embed_texts(texts).T


def match_logits(
    predictor: Predictor, pictures: Pictures, texts: Sequence[str], asked: Bool[np.ndarray, "i t"]
) -> Float[np.ndarray, "i t"]:
    """The matching head's logit of every pair that is asked for, 0 elsewhere."""
    logits = np.zeros(asked.shape, np.float32)
    for part, shown in blocks("matching", pictures, predictor.model.config.vit.px):
        image, text = np.nonzero(asked[part])
        used, text_idx = np.unique(text, return_inverse=True)
        tokens = predictor.encode_images(shown)
        logits[part][image, text] = predictor.itm_logits(tokens, image, text_idx, [texts[i] for i in used])
    return logits


def write_captions(predictor: Predictor, pictures: Pictures, decoding: Decoding) -> list[str]:
    """What the model writes for each image; empty where its rules allow no text."""
    captions: list[str] = []
    for part, shown in blocks("captioning", pictures, predictor.model.config.vit.px):
        seeds = range(part.start, part.start + len(shown))
        captions += [caption.text for caption in predictor.caption(shown, seeds, decoding)]
    return captions


def blocks(stage: str, pictures: Pictures, px: int) -> Iterator[tuple[slice, np.ndarray]]:
    """Images (or fewer clips) at the model's size, block by block."""
    first = pictures[:1]
    frames = first.shape[1] if first.ndim == 5 else 1
    size = max(1, AT_ONCE // frames**2)  # what a text looks at grows with the frames, and so does its projection
    with Progress(stage, len(pictures)) as bar:
        for start in range(0, len(pictures), size):
            shown = pictures[start : start + size]
            yield slice(start, start + size), at_px(np.asarray(shown), px)
            bar.update(start + len(shown))


def at_px(pictures: np.ndarray, px: int) -> np.ndarray:
    """(M, S, S, 3) uint8 at the model's size."""
    if pictures.shape[-3:-1] == (px, px):
        return pictures
    return np.stack([to_pixels(picture, px) for picture in pictures])


def _owners(texts: Sequence[Sequence[str]]) -> np.ndarray:
    """For each text the index of its image."""
    return np.repeat(np.arange(len(texts)), [len(of_image) for of_image in texts])


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
