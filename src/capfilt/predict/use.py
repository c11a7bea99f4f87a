"""`capfilt.load`: a checkpoint at work on anything that is an image, one result an item, whatever the others are like.

Shapes: B images, E compared width.
"""

import hashlib
import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Float
from PIL import Image

from capfilt.abilities import Answer, Caption, Match, Verdict
from capfilt.data.annotations import clean_statement
from capfilt.errors import ConfigError, ImageError
from capfilt.inputs.dialogues import dialogue_ids
from capfilt.inputs.images import decode, to_pixels, upright
from capfilt.inputs.texts import clean_caption, clean_question
from capfilt.inputs.tokenizer import TextTokenizer
from capfilt.models.blip import Blip
from capfilt.models.blip_nlvr import BlipNlvr
from capfilt.models.blip_visdial import BlipVisdial
from capfilt.models.blip_vqa import BlipVqa
from capfilt.predict.answerer import ANSWERS, Answerer, K
from capfilt.predict.choose import choose
from capfilt.predict.faithful import Faithful
from capfilt.predict.predictor import Predictor
from capfilt.predict.reasoner import Dialogist, Reasoner
from capfilt.runtime import derive, device
from capfilt.weights.checkpoint import Origin, open_checkpoint
from capfilt.weights.store import FileLayout, save_as

T = TypeVar("T")
Picture = str | Path | bytes | Image.Image | np.ndarray
FOR_CLIPS = ("caption", "match", "embed", "ask")
CHUNK = 64  # images decoded at once, and the most that are in memory


def load(
    name: str | Path,
    *,
    revision: str | None = None,
    offline: bool = False,
    vocab: str | Path | None = None,
    px: int | None = None,
    sets: Sequence[str] = (),
    faithful: Iterable[str] | Faithful = (),
) -> "Model":
    """Reads a model from a hub id, a Hugging Face folder, an official or LAVIS `.pth`, or a folder that capfilt wrote.

    Args:
        name: what exists on disk or looks like a path never touches the network.
        revision: branch, tag or commit of a hub id.
        offline: take a hub id from the local cache only.
        vocab: bert-base-uncased's vocabulary (file, folder or hub id) where the checkpoint has none.
        px: image size to work at, positions resized; the checkpoint's own if None.
        sets: `name=value` changes of the model's config, as in `vit.eps=1e-5`.
        faithful: names of `Faithful`: behaviour of the original that its own training contradicts.

    Raises:
        WeightsError: no such checkpoint, not a whole one, one of another model, or no vocabulary.
        ConfigError: a setting or switch that does not exist.
    """
    found = open_checkpoint(name, revision=revision, offline=offline, vocab=vocab, px=px, sets=sets)
    return Model(found.model.to(device()), found.tokenizer, Faithful.of(faithful), found.origin)


class Model:
    """A model and its vocabulary. An image may be a path, encoded bytes, a PIL picture, or (H, W, 3) uint8 pixels; a
    clip of F frames is (F, H, W, 3) uint8 (`capfilt.data.video.frames`).

    One in, one out; a list in, a list out in its order. An image that cannot be used has its reason in `error`, and the
    others their answers. What a checkpoint cannot do is a ConfigError that says what it can.
    """

    def __init__(
        self, model: Any, tokenizer: TextTokenizer, faithful: Faithful | None = None, origin: Origin | None = None
    ) -> None:
        self.model, self.tokenizer, self.origin = model, tokenizer, origin
        self.faithful = faithful or Faithful()

    @property
    def abilities(self) -> tuple[str, ...]:
        """What it can do, of caption, match, embed, ask, judge, reply."""
        if isinstance(self.model, Blip):
            needs = (("caption", {"speak"}), ("match", {"read", "look"}), ("embed", {"read"}))
            return tuple(name for name, roles in needs if roles <= set(self.model.config.roles))
        return ({BlipVqa: "ask", BlipNlvr: "judge", BlipVisdial: "reply"}[type(self.model)],)

    @property
    def px(self) -> int:
        """Side of the square that images are resized to."""
        return self.model.config.vit.px

    def __repr__(self) -> str:
        where = f" from {self.origin.where}" if self.origin else ""
        return f"<capfilt.Model{where}: {', '.join(self.abilities)}; {self.px} px>"

    # ---- captions -----------------------------------------------------------------------------------------------

    def caption(
        self,
        images: Picture | Sequence[Picture],
        *,
        n: int | None = None,
        seed: int = 0,
        prompt: str | None = None,
        **settings: Any,
    ) -> Any:
        """Captions: a `Caption` an image; with `n` a list of up to so many an image (beam search: best first).

        seed: of nucleus sampling; what an image is given hangs on its pixels and the seed alone.
        prompt: what captions start with; the model's own if None.
        settings: fields of `Decoding`. `beams=3` searches, `top_p=.9` (or top_k, temperature) draws, `beams=1` takes
            the likeliest word; without any, beam search as the original evaluates on COCO.
        """
        self._need("caption")
        decoding = choose(settings, n)
        predictor = Predictor(self.model, self.tokenizer, prompt=prompt)

        def work(pixels: np.ndarray, _: list[int]) -> list[list[Caption]]:
            return predictor.captions(pixels, [_seed(seed, p) for p in pixels], decoding, 1 if n is None else n)

        def lost(_: int, error: str) -> list[Caption]:
            return [Caption("", math.nan, error=error)] * (n or 1)

        found = self._each(_listed(images), work, lost)
        return _like(images, found if n is not None else [captions[0] for captions in found])

    # ---- texts and images compared ------------------------------------------------------------------------------

    def match(self, images: Picture | Sequence[Picture], texts: Any, every: bool = False) -> Any:
        """How well texts fit images, each a `Match`.

        One image and one text give one; one image and a list of texts a list. B images and B texts are compared pair by
        pair; the i-th text may be a list of its own. With `every`, each image with every text: B lists.
        """
        self._need("match")
        pictures = _listed(images)
        one = not isinstance(images, list | tuple)
        if every or one:
            asked = [[texts] if isinstance(texts, str) else list(texts)] * len(pictures)
        else:
            asked = [[t] if isinstance(t, str) else list(t) for t in texts]
        if isinstance(texts, str) and not one and not every:
            raise ConfigError("match: one text for a list of images; write every=True, or a text an image")
        if len(asked) != len(pictures):
            raise ConfigError(
                f"match: {len(pictures)} images and {len(asked)} texts are no pairs; every=True compares all with all"
            )
        predictor = Predictor(self.model, self.tokenizer, faithful=self.faithful)
        self._tell_cut((t for ts in asked for t in ts), clean_caption, predictor.max_length)

        def work(pixels: np.ndarray, at: list[int]) -> list[list[Match]]:
            return [[Match(*pair) for pair in of] for of in predictor.match(pixels, [asked[i] for i in at])]

        found = self._each(pictures, work, lambda i, error: [Match(math.nan, math.nan, error)] * len(asked[i]))
        if every:
            return found
        alone = isinstance(texts, str) if one else all(isinstance(t, str) for t in texts)
        flat = [of[0] for of in found] if alone else found
        return flat[0] if one else flat

    def embed_images(self, images: Picture | Sequence[Picture]) -> Float[np.ndarray, "b e"]:
        """Unit vectors, float32, a row an image; NaN, and a warning, for an image that cannot be used."""
        self._need("embed")
        predictor = Predictor(self.model, self.tokenizer)
        width, failed = self.model.config.embed, list[str]()

        def lost(_: int, error: str) -> np.ndarray:
            failed.append(error)
            return np.full(width, np.nan, np.float32)

        found = self._each(_listed(images), lambda pixels, _: list(predictor.embed_images(pixels)), lost)
        if failed:
            warnings.warn(f"{len(failed)} images have no vector; the first: {failed[0]}", stacklevel=2)
        return np.stack(found) if found else np.zeros((0, width), np.float32)

    def embed_texts(self, texts: str | Sequence[str]) -> Float[np.ndarray, "b e"]:
        """Unit vectors, float32, a row a text."""
        self._need("embed")
        predictor = Predictor(self.model, self.tokenizer)
        listed = [texts] if isinstance(texts, str) else list(texts)
        self._tell_cut(listed, clean_caption, predictor.max_length)
        return predictor.embed_texts(listed)

    # ---- questions and statements -------------------------------------------------------------------------------

    def ask(
        self,
        images: Picture | Sequence[Picture],
        questions: Any,
        candidates: Sequence[str] | None = None,
        k: int = K,
        **settings: Any,
    ) -> Any:
        """An `Answer` to a question about an image: the best of `candidates`, or where None a generated one.

        One image takes one question or a list of them; B images take B questions, each may be a list.
        k: candidates judged in full, chosen by their first id. settings: fields of `Decoding` for generated answers.
        """
        self._need("ask")
        pictures, one = _listed(images), not isinstance(images, list | tuple)
        given = [questions] if one else list(questions) if not isinstance(questions, str) else []
        if not one and isinstance(questions, str):
            raise ConfigError("ask: one question for a list of images; give each image its own")
        if len(given) != len(pictures):
            raise ConfigError(f"ask: {len(pictures)} images and {len(given)} questions; give each image its own")
        asked = [[q] if isinstance(q, str) else list(q) for q in given]
        answerer = Answerer(self.model, self.tokenizer, faithful=self.faithful)
        self._tell_cut((q for qs in asked for q in qs), clean_question, answerer.max_length)
        if candidates is not None and settings:
            raise ConfigError(f"ask: {', '.join(settings)} decide how answers are generated; these are chosen")
        decoding = choose(settings, None, ANSWERS)

        def work(pixels: np.ndarray, at: list[int]) -> list[list[Answer]]:
            return answerer.ask(pixels, [asked[i] for i in at], candidates, k, decoding)

        def lost(i: int, error: str) -> list[Answer]:
            return [Answer("", math.nan, math.nan, error=error)] * len(asked[i])

        found = self._each(pictures, work, lost)
        answers = [of[0] if isinstance(g, str) else of for g, of in zip(given, found, strict=True)]
        return answers[0] if one else answers

    def judge(self, first: Any, second: Any, statements: str | Sequence[str], seed: int = 0) -> Any:
        """A `Verdict` on each statement about two images. seed: of `faithful.random_swap` alone."""
        self._need("judge")
        one = isinstance(statements, str)
        told = [statements] if isinstance(statements, str) else list(statements)
        left, right = _listed(first), _listed(second)
        if not len(left) == len(right) == len(told):
            raise ConfigError(
                f"judge: {len(told)} statements, {len(left)} first images, {len(right)} second ones; one of each a row"
            )
        reasoner = Reasoner(self.model, self.tokenizer, faithful=self.faithful)
        self._tell_cut(told, clean_statement, self.model.config.text.positions)
        found: list[Verdict] = []
        for start in range(0, len(told), CHUNK):
            part = slice(start, start + CHUNK)
            pairs = list(zip(self._look(left[part], False), self._look(right[part], False), strict=True))
            wrong = [next((x for x in pair if isinstance(x, str)), None) for pair in pairs]
            good = [i for i, why in enumerate(wrong) if why is None]
            probabilities = iter(())
            if good:
                sides = [np.stack([pairs[i][side] for i in good]) for side in (0, 1)]
                seeds = [derive(seed, start + i) for i in good]
                judged = reasoner.judge(sides[0], sides[1], [told[start + i] for i in good], seeds)
                probabilities = iter(judged.tolist())
            found += [Verdict(next(probabilities)) if why is None else Verdict(math.nan, why) for why in wrong]
        return found[0] if one else found

    def reply(
        self,
        image: Picture,
        caption: str,
        history: Sequence[tuple[str, str]],
        question: str,
        options: Sequence[str],
    ) -> Answer:
        """The best of `options` in a talk about an image and its caption; history: (question, answer), oldest first."""
        self._need("reply")
        if isinstance(options, str) or not options:
            raise ConfigError(f"options={options!r}: a list with at least one answer to choose from is needed")
        pixels = self._look([image], clips=False)[0]
        if isinstance(pixels, str):
            return Answer("", math.nan, math.nan, error=pixels)
        said = [part for turn in history for part in turn]
        dialogues = [[*said, question, option] for option in options]
        self._tell_cut([caption, question, *said, *options], clean_caption, self.model.config.text.positions)
        kept = (
            dialogue_ids(self.tokenizer, dialogues[0], self.model.config.text.positions) == self.tokenizer.sep_id
        ).sum()
        if kept < len(dialogues[0]):
            warnings.warn(f"the {len(dialogues[0]) - kept} oldest parts of the talk do not fit; left out", stacklevel=2)
        logits = Dialogist(self.model, self.tokenizer).rank(pixels[None], [caption], [dialogues])[0]
        shares = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
        order = np.argsort(-logits, kind="stable").tolist()
        named = [(options[i], float(shares[i])) for i in order]
        return Answer(*named[0], float(logits[order[0]]), tuple(named[1:]))

    # ---- disk ---------------------------------------------------------------------------------------------------

    def save(self, folder: str | Path, layout: FileLayout = "capfilt") -> None:
        """Writes the model: `capfilt` (safetensors and JSON), `huggingface` or `official`.

        Raises WeightsError for what a layout cannot express.
        """
        save_as(self.model, self.tokenizer, Path(folder), layout)

    # ---- within -------------------------------------------------------------------------------------------------

    def _need(self, ability: str) -> None:
        if ability not in self.abilities:
            raise ConfigError(f"this checkpoint cannot {ability}; it can {', '.join(self.abilities)}")

    def _each(
        self,
        images: Sequence[Picture],
        work: Callable[[np.ndarray, list[int]], list[T]],
        failed: Callable[[int, str], T],
    ) -> list[T]:
        """One result an image: `work` on the pixels and numbers of those that can be used, `failed` for the rest."""
        out: list[T] = []
        for start in range(0, len(images), CHUNK):
            chunk = images[start : start + CHUNK]
            seen = self._look(chunk)
            pixels = [x for x in seen if isinstance(x, np.ndarray)]
            good = [start + i for i, x in enumerate(seen) if isinstance(x, np.ndarray)]
            done = iter(work(np.stack(pixels), good) if good else [])
            out += [failed(start + i, x) if isinstance(x, str) else next(done) for i, x in enumerate(seen)]
        return out

    def _look(self, images: Sequence[Picture], clips: bool = True) -> list[np.ndarray | str]:
        """Pixels of each image, or why it cannot be used."""
        with ThreadPoolExecutor() as threads:
            found = list(threads.map(self._one, images))
        if not clips and any(isinstance(x, np.ndarray) and x.ndim == 4 for x in found):
            raise ConfigError(f"this model looks at images; clips are for models that {' or '.join(FOR_CLIPS)}")
        if len({x.shape for x in found if isinstance(x, np.ndarray)}) > 1:
            raise ConfigError("images and clips, or clips of several lengths, in one list; give each kind its own call")
        return found

    def _one(self, image: Picture) -> np.ndarray | str:
        as_stored = self.faithful.images_as_stored
        try:
            if isinstance(image, np.ndarray):
                frames = [to_pixels(frame, self.px) for frame in _frames(image)]
                return np.stack(frames) if image.ndim == 4 else frames[0]
            if isinstance(image, Image.Image):
                return to_pixels(upright(image, as_stored), self.px)
            if not isinstance(image, str | Path | bytes):
                raise ImageError("not_an_image", f"a {type(image).__name__}; a path, bytes, picture or array is needed")
            data = image if isinstance(image, bytes) else Path(image).expanduser().read_bytes()
            return to_pixels(decode(data, as_stored=as_stored), self.px)
        except ImageError as error:
            return f"{error.reason}: {_named(image)}{error}"
        except OSError as error:
            return f"unreadable: {_named(image)}{error.strerror or error}"
        except ValueError as error:  # a path that no system has
            return f"unreadable: {image!r}: {error}"

    def _tell_cut(self, texts: Iterable[str], clean: Callable[..., str], limit: int) -> None:
        """A warning where texts are longer than the model reads."""
        whole = [clean(text, 10**6) for text in texts]
        kept = [clean(text) for text in whole]
        lengths = [len(row) for row in self.tokenizer.encode(kept, 10**6)]
        cut = [w for w, k, n in zip(whole, kept, lengths, strict=True) if n > limit or w.count(" ") > k.count(" ")]
        if cut:
            warnings.warn(
                f"{len(cut)} of {len(whole)} texts are longer than the model reads ({limit} ids); what is beyond is "
                f"left out. The first begins {cut[0][:40]!r}",
                stacklevel=3,
            )


def _frames(array: np.ndarray) -> np.ndarray:
    """(H, W, 3) as the one frame of a clip. Raises ImageError for what is neither an image nor a clip."""
    whole = array.dtype == np.uint8 and array.ndim in (3, 4) and array.shape[-1] == 3 and array.size
    if not whole:
        raise ImageError(
            "not_an_image",
            f"an array of {array.dtype} {array.shape}; uint8 of (H, W, 3), or of clips (F, H, W, 3), is needed",
        )
    return array if array.ndim == 4 else array[None]


def _listed(images: Any) -> list[Picture]:
    return list(images) if isinstance(images, list | tuple) else [images]


def _like(images: Any, found: list[T]) -> T | list[T]:
    return found if isinstance(images, list | tuple) else found[0]


def _named(image: Picture) -> str:
    return f"{image}: " if isinstance(image, str | Path) else ""


def _seed(seed: int, pixels: np.ndarray) -> int:
    return derive(seed, hashlib.blake2b(np.ascontiguousarray(pixels).tobytes(), digest_size=8).hexdigest())
