"""`capfilt.load`: a checkpoint at work on anything that is an image, one result an item, whatever the others are like.

Shapes: B images, E compared width.
"""

import contextlib
import hashlib
import math
import os
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Float

from capfilt.abilities import Answer, Caption, Match, Verdict
from capfilt.data.annotations import clean_statement
from capfilt.data.decoders import Decoders, Picture, Reading
from capfilt.errors import ConfigError, ImageError
from capfilt.inputs.dialogues import dialogue_ids
from capfilt.inputs.squash import squash
from capfilt.inputs.texts import clean_caption, clean_question
from capfilt.inputs.tokenizer import TextTokenizer
from capfilt.models.blip import Blip
from capfilt.models.blip_nlvr import BlipNlvr
from capfilt.models.blip_visdial import BlipVisdial
from capfilt.models.blip_vqa import BlipVqa
from capfilt.predict.answerer import ANSWERS, Answerer, K
from capfilt.predict.choose import choose
from capfilt.predict.cut import tell_cut
from capfilt.predict.faithful import Faithful
from capfilt.predict.predictor import Predictor
from capfilt.predict.ready import choose as choose_precision
from capfilt.predict.ready import engine_of, ready
from capfilt.predict.reasoner import Dialogist, Reasoner
from capfilt.predict.replicas import Job, Opening, Replicas, everywhere
from capfilt.runtime import derive
from capfilt.weights.checkpoint import Origin, open_checkpoint
from capfilt.weights.store import FileLayout, save_as

T = TypeVar("T")
FOR_CLIPS = ("caption", "match", "embed", "ask")
CHUNK = 64  # images that a model works on while the next ones are read
MANY = 256  # images; for fewer, processes on other devices take longer to start than they save


def load(
    name: str | Path,
    *,
    revision: str | None = None,
    offline: bool = False,
    vocab: str | Path | None = None,
    px: int | None = None,
    sets: Sequence[str] = (),
    faithful: Iterable[str] | Faithful = (),
    precision: str = "auto",
    reading: Reading | None = None,
) -> "Model":
    """Reads a model from a hub id, a Hugging Face folder, an official or LAVIS `.pth`, or a folder that capfilt wrote.

    CAPFILT_ENGINE names the engine of the vision tower: `torch`, `openvino` (an extra), or `auto`, the default, which
    takes OpenVINO if it is installed and faster, and some seconds to find out.

    Where there are several GPUs, lists of 256 images and more are dealt to all of them, to a process each, started
    when first needed; all else is done by the first. CAPFILT_DEVICE names one (`cuda:0`), or those to use
    (`cuda:0,cuda:2`).

    Args:
        name: what exists on disk or looks like a path never touches the network.
        revision: branch, tag or commit of a hub id.
        offline: take a hub id from the local cache only.
        vocab: bert-base-uncased's vocabulary (file, folder or hub id) where the checkpoint has none.
        px: image size to work at, positions resized; the checkpoint's own if None.
        sets: `name=value` changes of the model's config, as in `vit.eps=1e-5`.
        faithful: names of `Faithful`: behaviour of the original that its own training contradicts.
        precision: `fp32`, `bf16`, or `int8` (bytes in the vision tower, on CPUs); `auto` is bf16 for wide models where
            this machine multiplies it faster. docs/numbers.md has what each costs and gains.
        reading: how pictures are read: by how many processes, how far ahead, JPEGs at a fraction of their size or not.

    Raises:
        WeightsError: no such checkpoint, not a whole one, one of another model, or no vocabulary.
        ConfigError: a setting, switch or device that does not exist.
    """
    devices = everywhere()
    how: dict[str, Any] = {"revision": revision, "vocab": vocab, "px": px, "sets": sets}
    found = open_checkpoint(name, offline=offline, **how)
    model, engine = found.model.to(devices[0]), os.environ.get("CAPFILT_ENGINE", "auto")
    made = Model(model, found.tokenizer, Faithful.of(faithful), found.origin, reading, precision, engine, mapped=True)
    if len(devices) > 1:  # the others take what this one chose, and what it has downloaded
        settled = precision if made.at_work is model else made.precision.precision
        opening = Opening(name, {**how, "offline": True}, settled, engine_of(made.at_work))
        made.replicas = Replicas(opening, devices)
    return made


class Model:
    """A model and its vocabulary. An image may be a path, encoded bytes, a PIL picture, or (H, W, 3) uint8 pixels; a
    clip of F frames is (F, H, W, 3) uint8 (`capfilt.data.video.frames`).

    One in, one out; a list in, a list out in its order. An image that cannot be used has its reason in `error`, and the
    others their answers. What a checkpoint cannot do is a ConfigError that says what it can.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: TextTokenizer,
        faithful: Faithful | None = None,
        origin: Origin | None = None,
        reading: Reading | None = None,
        precision: str = "auto",
        engine: str = "torch",
        mapped: bool = False,
    ) -> None:
        self.model, self.tokenizer, self.origin = model, tokenizer, origin
        self.precision = choose_precision(model, precision)
        self.at_work = ready(model, precision, engine, mapped)
        self.faithful, self.reading = faithful or Faithful(), reading or Reading()
        self.replicas: Replicas | None = None  # for long lists, where `load` found several devices

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
        return f"<capfilt.Model{where}: {', '.join(self.abilities)}; {self.px} px; {', '.join(self.devices)}>"

    @property
    def devices(self) -> list[str]:
        """Where it works: long lists on all of them, all else on the first."""
        return self.replicas.devices if self.replicas else [str(next(self.model.parameters()).device)]

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

        def work(pixels: np.ndarray, _: list[int]) -> Job:
            these = pixels, [_seed(seed, p) for p in pixels], decoding, 1 if n is None else n
            return Job(Predictor, Predictor.captions, these, {"prompt": prompt})

        found = self._each(_listed(images), work, lambda _, error: [Caption("", math.nan, error=error)] * (n or 1))
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
        max_length = Predictor(self.at_work, self.tokenizer).max_length
        tell_cut(self.tokenizer, (t for ts in asked for t in ts), clean_caption, max_length)

        def work(pixels: np.ndarray, at: list[int]) -> Job:
            return Job(Predictor, Predictor.match, (pixels, [asked[i] for i in at]), {"faithful": self.faithful})

        told = self._each(pictures, work, lambda i, error: [(math.nan, math.nan, error)] * len(asked[i]))
        found = [[Match(*values) for values in of] for of in told]
        if every:
            return found
        alone = isinstance(texts, str) if one else all(isinstance(t, str) for t in texts)
        flat = [of[0] for of in found] if alone else found
        return flat[0] if one else flat

    def embed_images(self, images: Picture | Sequence[Picture]) -> Float[np.ndarray, "b e"]:
        """Unit vectors, float32, a row an image; NaN, and a warning, for an image that cannot be used."""
        self._need("embed")
        width, failed = self.model.config.embed, list[str]()

        def lost(_: int, error: str) -> np.ndarray:
            failed.append(error)
            return np.full(width, np.nan, np.float32)

        found = self._each(_listed(images), lambda x, _: Job(Predictor, Predictor.embed_images, (x,), {}), lost)
        if failed:
            warnings.warn(f"{len(failed)} images have no vector; the first: {failed[0]}", stacklevel=2)
        return np.stack(found) if found else np.zeros((0, width), np.float32)

    def embed_texts(self, texts: str | Sequence[str]) -> Float[np.ndarray, "b e"]:
        """Unit vectors, float32, a row a text."""
        self._need("embed")
        predictor = Predictor(self.at_work, self.tokenizer)
        listed = [texts] if isinstance(texts, str) else list(texts)
        tell_cut(self.tokenizer, listed, clean_caption, predictor.max_length)
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
        max_length = Answerer(self.at_work, self.tokenizer).max_length
        tell_cut(self.tokenizer, (q for qs in asked for q in qs), clean_question, max_length)
        if candidates is not None and settings:
            raise ConfigError(f"ask: {', '.join(settings)} decide how answers are generated; these are chosen")
        decoding = choose(settings, None, ANSWERS)

        def work(pixels: np.ndarray, at: list[int]) -> Job:
            these = pixels, [asked[i] for i in at], candidates, k, decoding
            return Job(Answerer, Answerer.ask, these, {"faithful": self.faithful})

        found = self._each(pictures, work, lambda i, why: [Answer("", math.nan, math.nan, error=why)] * len(asked[i]))
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
        reasoner = Reasoner(self.at_work, self.tokenizer, faithful=self.faithful)
        tell_cut(self.tokenizer, told, clean_statement, self.model.config.text.positions)
        found: list[Verdict] = []
        sides = self._look(left, clips=False), self._look(right, clips=False)
        for start in range(0, len(told), CHUNK):
            pairs = list(islice(zip(*sides, strict=True), CHUNK))
            wrong = [next((x for x in pair if isinstance(x, str)), None) for pair in pairs]
            good = [i for i, why in enumerate(wrong) if why is None]
            probabilities = iter(())
            if good:
                first, second = (np.stack([pairs[i][side] for i in good]) for side in (0, 1))
                seeds = [derive(seed, start + i) for i in good]
                judged = reasoner.judge(first, second, [told[start + i] for i in good], seeds)
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
        pixels = next(self._look([image], clips=False))
        if isinstance(pixels, str):
            return Answer("", math.nan, math.nan, error=pixels)
        said = [part for turn in history for part in turn]
        dialogues = [[*said, question, option] for option in options]
        tell_cut(self.tokenizer, [caption, question, *said, *options], clean_caption, self.model.config.text.positions)
        kept = (
            dialogue_ids(self.tokenizer, dialogues[0], self.model.config.text.positions) == self.tokenizer.sep_id
        ).sum()
        if kept < len(dialogues[0]):
            warnings.warn(f"the {len(dialogues[0]) - kept} oldest parts of the talk do not fit; left out", stacklevel=2)
        logits = Dialogist(self.at_work, self.tokenizer).rank(pixels[None], [caption], [dialogues])[0]
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
        work: Callable[[np.ndarray, list[int]], Job],
        failed: Callable[[int, str], T],
    ) -> list[T]:
        """One result an image: `work` on the pixels and numbers of those that can be used, `failed` for the rest."""
        why: list[str | None] = []

        def jobs() -> Iterator[Job]:
            for start in range(0, len(images), CHUNK):
                seen = list(islice(looked, CHUNK))
                why.extend(x if isinstance(x, str) else None for x in seen)
                good = [i for i, x in enumerate(seen) if isinstance(x, np.ndarray)]
                if good:
                    yield work(np.stack([seen[i] for i in good]), [start + i for i in good])

        with contextlib.closing(self._look(images)) as looked:
            if self.replicas and len(images) >= MANY:
                done = iter(self.replicas.answers(jobs()))
            else:
                done = iter([x for job in jobs() for x in job.on(self.at_work, self.tokenizer)])
        return [next(done) if error is None else failed(i, error) for i, error in enumerate(why)]

    def _look(self, images: Sequence[Picture], clips: bool = True) -> Generator[np.ndarray | str, None, None]:
        """Pixels of each image, or why it cannot be used; the next ones are read while the caller works on these."""
        at = [os.path.expanduser(image) if isinstance(image, str | Path) else image for image in images]
        frames: set[int] = set()
        files = sum(isinstance(image, str | bytes) for image in at)
        on_device = self.reading.resize == "device"
        with Decoders(self.px, self.reading, files, self.faithful.images_as_stored, on_device) as decoders:
            for image, found in zip(images, decoders.decode(at), strict=True):
                if isinstance(found, ImageError):
                    yield f"{found.reason}: " + (f"{image}: " if isinstance(image, str | Path) else "") + str(found)
                    continue
                frames.add(len(found.pixels) if found.pixels.ndim == 4 else 0)
                if not clips and frames != {0}:
                    raise ConfigError(f"this model looks at images; clips are for models that {' or '.join(FOR_CLIPS)}")
                if len(frames) > 1:
                    raise ConfigError(
                        "images and clips, or clips of several lengths, in one list; give each kind its own call"
                    )
                yield self._squashed(found.pixels) if on_device else found.pixels

    def _squashed(self, pixels: np.ndarray) -> np.ndarray:
        shown = torch.from_numpy(pixels).to(next(self.model.parameters()).device)
        return squash(shown, self.px).cpu().numpy()


def _listed(images: Any) -> list[Picture]:
    return list(images) if isinstance(images, list | tuple) else [images]


def _like(images: Any, found: list[T]) -> T | list[T]:
    return found if isinstance(images, list | tuple) else found[0]


def _seed(seed: int, pixels: np.ndarray) -> int:
    return derive(seed, hashlib.blake2b(np.ascontiguousarray(pixels).tobytes(), digest_size=8).hexdigest())
