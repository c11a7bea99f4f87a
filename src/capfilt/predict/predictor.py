"""A trained Blip at work, numpy in and out: embed, match, re-rank, caption.

Wherever an image is asked for, a clip of F frames may stand: its vector is the mean over its frames, and a text looks
at the tokens of all of them (BLIP, arXiv 2201.12086, §5.7). Where an image is asked for more than one thing, `see` it
once: `match` and `captions` take what that gives in the place of pixels.

Shapes: B images of (H, W, 3), N image tokens, D width, E compared width, T texts an image, L ids, P pairs.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from capfilt.abilities import Caption
from capfilt.blocks.attention import Seen
from capfilt.blocks.med import Med, Role
from capfilt.blocks.packed_rows import pack
from capfilt.blocks.past import FixedPast, GrowingPast
from capfilt.errors import ConfigError
from capfilt.inputs.texts import clean_caption
from capfilt.inputs.tokenizer import TextTokenizer
from capfilt.models.blip import Blip
from capfilt.predict import feeding
from capfilt.predict.decode import NUCLEUS, Decoding, Said, constraints, decode, live
from capfilt.predict.faithful import RIGHT, Faithful
from capfilt.predict.feeding import Pixels, joined, parts, see, still, to_numpy
from capfilt.predict.recorded import Recorded, records
from capfilt.predict.stream import BlipRelay, each_once, stream, streams, word_behind
from capfilt.runtime import rng

Tokens = Float[Tensor, "b *f n d"]
ONE_IMAGE = 3  # times as dear is a step's look at its tokens: too little work at a time to keep cores busy


class Predictor:
    """Embedder, Matcher and Captioner around one model, as far as its roles go; a missing role is a ConfigError.

    batch:      text rows (or images) worked on at once; answers do not depend on it.
    max_length: longer texts are cut to so many ids, [CLS] and [SEP] included.
    prompt:     what every caption starts with, the model's own if None ("a picture of " in BLIP's COCO captioner). It
                is given, not written: no part of the caption or its score.
    """

    def __init__(
        self,
        model: Blip,
        tokenizer: TextTokenizer,
        batch: int = 256,
        max_length: int = 35,
        prompt: str | None = None,
        faithful: Faithful = RIGHT,
    ) -> None:
        if batch < 1:
            raise ConfigError(f"batch={batch}: at least one row at a time")
        special = model.config.special
        feeding.check_words(special, model.config.text, tokenizer)
        self.model, self.tokenizer, self.batch = model, tokenizer, batch
        self.max_length = min(max_length, model.config.text.positions)
        prompt = model.config.prompt if prompt is None else prompt
        self.start = [special.dec, *tokenizer.encode([prompt], 10**6)[0][1:-1].tolist()]
        self.faithful = faithful
        self.device = next(model.parameters()).device

    # ---- compared space -----------------------------------------------------------------------------------------

    def embed_images(self, pixels: Pixels) -> Float[np.ndarray, "b e"]:
        """Images (B, H, W, 3) → unit vectors (B, E)."""
        self.need("read")
        out = np.zeros((len(pixels), self.model.config.embed), np.float32)
        with still(self.model):
            for part in parts(len(pixels), max(1, self.batch // frames_of(pixels))):
                pixel = self._tensor(pixels[part])
                out[part] = to_numpy(self.model.image_vec(see(self.model.vit, pixel, cls_only=True)))
        return out

    def embed_texts(self, texts: Sequence[str]) -> Float[np.ndarray, "b e"]:
        """Texts → unit vectors (B, E)."""
        self.need("read")
        rows = self._tokens(texts)
        out = np.zeros((len(rows), self.model.config.embed), np.float32)
        order = np.argsort([len(row) for row in rows], kind="stable")
        with still(self.model):
            for part in parts(len(rows), self.batch):
                packed = pack([rows[i] for i in order[part]], [len(order[part])], self.device)
                out[order[part]] = to_numpy(self.model.text_vec_of(self.model.text.first_states(packed)))
        return out

    def see(self, pixels: Pixels) -> Tokens:
        """Image tokens (B, N, D), of clips (B, F, N, D), on the model's device."""
        vit, size = self.model.config.vit, max(1, self.batch // frames_of(pixels))
        with still(self.model):
            seen = [see(self.model.vit, self._tensor(pixels[part])) for part in parts(len(pixels), size)]
            none = torch.zeros(0, *pixels.shape[1:-3], vit.tokens, vit.width, device=self.device)
            return torch.cat(seen) if seen else none

    # ---- matching -----------------------------------------------------------------------------------------------

    def match(self, pixels: Pixels | Tokens, texts: Sequence[Sequence[str]]) -> list[list[tuple[float, float]]]:
        """For image b and each of its texts: (probability of a match in [0, 1], cosine in [-1, 1]).

        Every image is encoded once, whatever the number of its texts, which may differ; none gives an empty list.
        """
        self.need("read", "look")
        feeding.check_texts(texts, len(pixels))
        rows, owner = self._encode(texts)
        text_vec = self.embed_texts([t for ts in texts for t in ts])
        image_vec = np.zeros((len(pixels), self.model.config.embed), np.float32)
        probability = np.zeros(len(rows), np.float32)
        with still(self.model):
            for images, blocks in self._plan(rows, owner, len(pixels), frames_of(pixels)):
                image = self._seen(pixels, images)
                image_vec[images] = to_numpy(self.model.image_vec(image))
                for at, logits in self._looked(joined(image), rows, blocks):
                    probability[at] = to_numpy(logits.softmax(dim=-1)[:, 1])
        cosine = (image_vec[owner] * text_vec).sum(axis=1)
        pairs = zip(probability.tolist(), cosine.tolist(), strict=True)
        return [[next(pairs) for _ in ts] for ts in texts]

    def vectors(self, image: Tokens) -> Float[np.ndarray, "b e"]:
        """Unit vectors of images that are given by their tokens."""
        self.need("read")
        with still(self.model):
            return to_numpy(self.model.image_vec(image))

    def cosines(self, image: Tokens, texts: Sequence[Sequence[str]]) -> list[list[float]]:
        """For image b, given by its tokens, and each of its texts: the cosine of their vectors, in [-1, 1]."""
        feeding.check_texts(texts, len(image))
        image_vec = self.vectors(image)
        flat = iter(self.embed_texts([t for ts in texts for t in ts]))
        return [[float(vec @ next(flat)) for _ in ts] for vec, ts in zip(image_vec, texts, strict=True)]

    def encode_images(self, pixels: Pixels) -> Float[np.ndarray, "b n d"]:
        """Image tokens, float32, for `itm_logits`: encode once, ask many times."""
        return to_numpy(joined(self.see(pixels)))

    def itm_logits(
        self,
        features: Float[np.ndarray, "b n d"],
        image_idx: Int[np.ndarray, "p"],
        text_idx: Int[np.ndarray, "p"],
        texts: Sequence[str],
    ) -> Float[np.ndarray, "p"]:
        """The raw match logit (class 1) of P pairs: features[image_idx[p]] with texts[text_idx[p]].

        features: from `encode_images`. Pairs named twice are computed once.
        """
        self.need("look")
        feeding.check_texts([texts], 1)
        pairs, back = np.unique(image_idx.astype(np.int64) * len(texts) + text_idx, return_inverse=True)
        encoded = self._tokens(texts)
        rows = [encoded[i] for i in pairs % max(1, len(texts))]
        out = np.zeros(len(pairs), np.float32)
        with still(self.model):
            frames = max(1, features.shape[1] // self.model.config.vit.tokens)
            for images, blocks in self._plan(rows, pairs // max(1, len(texts)), len(features), frames):
                for at, logits in self._looked(torch.from_numpy(features[images]).to(self.device), rows, blocks):
                    out[at] = to_numpy(logits[:, 1])
        return out[back]

    # ---- speaking -----------------------------------------------------------------------------------------------

    def caption(self, pixels: Pixels, seeds: Sequence[int], decoding: Decoding = NUCLEUS) -> list[Caption]:
        """One caption an image. seeds: one an image; a caption hangs on its image and seed alone (nucleus only)."""
        return [texts[0] for texts in self.captions(pixels, seeds, decoding, 1)]

    def captions(
        self, pixels: Pixels | Tokens, seeds: Sequence[int], decoding: Decoding = NUCLEUS, n: int = 1
    ) -> list[list[Caption]]:
        """Up to `n` captions an image: as drawn (nucleus), or best first (beam). The first is `caption`'s."""
        self.need("speak")
        check_seeds(seeds, len(pixels))
        if n < 1 or (n > 1 and (decoding.method == "greedy" or (decoding.method == "beam" and n > decoding.beams))):
            raise ConfigError(
                f"caption: n={n} with method={decoding.method!r}, beams={decoding.beams}: greedy writes one caption, "
                "beam search as many as it has beams, nucleus any number from 1"
            )
        room = decoding.room(len(self.start))
        if len(self.start) + room > self.model.config.text.positions:
            raise ConfigError(
                f"decoding: a start of {len(self.start)} ids and {room} more pass the model's "
                f"{self.model.config.text.positions} positions; lower max_length"
            )
        with still(self.model):
            slots = self.images_at_once(1, frames_of(pixels))
            if n == 1 and streams(decoding) and len(pixels) > slots:
                said = self._streamed(pixels, seeds, decoding, slots)
            else:
                said = self._batched(pixels, seeds, decoding, n)
        none = Caption("", -math.inf, error="no text keeps every rule that the decoding sets")
        return [
            [Caption(self.tokenizer.decode(s.ids), s.score, s.ids, s.logps) for s in each[:n]] or [none]
            for each in said
        ]

    def _batched(self, pixels: Pixels | Tokens, seeds: Sequence[int], decoding: Decoding, n: int) -> list[list[Said]]:
        special, room = self.model.config.special, decoding.room(len(self.start))
        words = constraints(decoding, self.tokenizer)
        rows = live(decoding, words, n)
        said: list[list[Said]] = []
        for part in parts(len(pixels), self.images_at_once(rows, frames_of(pixels))):
            image = joined(self._seen(pixels, part))
            uniforms = self._uniforms(seeds[part], decoding, n)
            start = torch.tensor([self.start] * len(image), device=self.device)
            asked = rows * room * (ONE_IMAGE if len(image) == 1 else 1)
            seen, span = self.model.text.seen(image, asked), len(self.start) + rows * room
            speech = BlipSpeech(self.model.text, seen, len(self.tokenizer), span=span)
            said += decode(speech, start, decoding, special.sep, special.pad, uniforms, words)
        return said

    def _streamed(
        self, pixels: Pixels | Tokens, seeds: Sequence[int], decoding: Decoding, slots: int
    ) -> list[list[Said]]:
        """One text an image; the slots are filled, then what follows is encoded by the quarter of that."""
        start, room = torch.tensor(self.start, device=self.device), decoding.room(len(self.start))
        few = max(1, slots // 4)
        at = (slice(slots), *(slice(i, i + few) for i in range(slots, len(pixels), few)))
        images = (joined(self._seen(pixels, part)) for part in at)
        speech = BlipRelay(self.model.text, images, slots, len(start) + room - 1, room, len(self.tokenizer))
        uniforms = self._uniforms(seeds, decoding)
        found = stream(speech, start, len(pixels), slots, decoding, self.model.config.special.sep, uniforms)
        return [[said] for said in found]

    def _uniforms(self, seeds: Sequence[int], decoding: Decoding, n: int = 1) -> Tensor | None:
        """The numbers that draw each image's first text, then each one's second, ..."""
        if decoding.method != "nucleus":
            return None
        room = decoding.room(len(self.start))
        drawn = [rng("caption", seed, *([text] if text else [])).random(room) for text in range(n) for seed in seeds]
        return torch.from_numpy(np.stack(drawn)).to(self.device)

    # ---- rows and images ----------------------------------------------------------------------------------------

    def _encode(self, texts: Sequence[Sequence[str]]) -> tuple[list[np.ndarray], np.ndarray]:
        """All texts as id rows in one list, and the image each belongs to."""
        flat = [t for ts in texts for t in ts]
        return self._tokens(flat), np.repeat(np.arange(len(texts)), [len(t) for t in texts])

    def _tokens(self, texts: Sequence[str]) -> list[np.ndarray]:
        return self.tokenizer.encode([clean_caption(text) for text in texts], self.max_length)

    def _plan(
        self, rows: list[np.ndarray], owner: Int[np.ndarray, "p"], images: int, frames: int = 1
    ) -> Iterator[tuple[np.ndarray, list[np.ndarray]]]:
        most = self.images_at_once(1, frames)
        return feeding.plan([len(row) for row in rows], owner, images, self.batch, most)

    def _looked(
        self, image: Tensor, rows: list[np.ndarray], blocks: list[np.ndarray]
    ) -> Iterator[tuple[np.ndarray, Tensor]]:
        """(row numbers, their match logits (n, 2)) block by block; the image side is projected once."""
        model = self.model
        asked = [len(rows[i]) for slots in blocks for i in slots if i >= 0]
        seen = model.text.seen(image, sum(asked) // len(image), len(asked) // len(image))
        mark = None if self.faithful.match_cls else model.config.special.enc
        for slots in blocks:
            mine = slots.reshape(-1, len(image)).T
            at, counts = mine[mine >= 0], (mine >= 0).sum(axis=1).tolist()
            packed = pack([rows[i] for i in at], counts, self.device, mark)
            yield at, model.match_logits_of(model.text.first_states(packed, seen))

    def images_at_once(self, texts: int, frames: int = 1) -> int:
        """How many images go together when each has so many texts."""
        return feeding.images_at_once(self.model.config.vit, self.model.config.text, self.batch, texts, frames)

    def _seen(self, pixels: Pixels | Tokens, at: slice | np.ndarray) -> Tensor:
        """The tokens of some of the images."""
        return pixels[at] if isinstance(pixels, Tensor) else see(self.model.vit, self._tensor(pixels[at]))

    def _tensor(self, pixels: np.ndarray) -> Tensor:
        return feeding.as_tensor(pixels, self.model.config.vit.px, self.device)

    def need(self, *roles: Role) -> None:
        """Raises ConfigError unless the model has these roles."""
        missing = [role for role in roles if role not in self.model.config.roles]
        if missing:
            raise ConfigError(
                f"this needs a model that can {' and '.join(missing)}; the roles of this one are "
                f"{', '.join(self.model.config.roles)}"
            )


class BlipSpeech:
    """Texts in the making, for `decode`: what they look at, projected, and what every row has said.

    words:  how many ids may be said; a word table can be longer than its vocabulary. None for all.
    hidden: (B, 1, 1, N), -inf where `seen` is padding; None where nothing is.
    span:   most keys an image gets, the start's and one for each word of each of its texts. Where it is known, steps on
            a GPU are recorded.
    """

    def __init__(
        self,
        text: Med,
        seen: Sequence[Seen],
        words: int | None = None,
        hidden: Tensor | None = None,
        span: int | None = None,
    ) -> None:
        self.text, self.seen, self.words, self.hidden = text, seen, words, hidden
        first = seen[0] if isinstance(seen[0], Tensor) else seen[0][0]
        self.past: FixedPast | GrowingPast
        self.recorded: Recorded | None = None
        if span is not None and records(first.device):
            self.past, self.recorded = FixedPast(len(first), span, first.device), Recorded()
        else:
            self.past = GrowingPast(len(first), first.device)

    def hear(self, ids: Int[Tensor, "r l"]) -> Float[Tensor, "r v"]:
        """Logits of the next word after adding ids to every row."""
        if self.recorded is not None and ids.shape[1] == 1:
            return self.recorded(self._step, ids)
        return self._step(ids)

    def _step(self, ids: Tensor) -> Tensor:
        return word_behind(self.text, ids, self.seen, self.past, self.words, self.hidden)

    def follow(self, rows: Int[Tensor, "r"]) -> None:
        """Row r goes on from row rows[r]."""
        self.past.follow(rows)

    def keep(self, images: Int[Tensor, "b"]) -> None:
        """Only these images go on."""
        if self.recorded is not None:
            self.recorded.forget()
        self.past.keep(images)
        self.seen = each_once(self.seen, lambda seen: seen[images])
        self.hidden = None if self.hidden is None else self.hidden[images]


def check_seeds(seeds: Sequence[int], images: int) -> None:
    """Raises ConfigError unless there is one seed an image."""
    if len(seeds) != images:
        raise ConfigError(f"caption: {images} images but {len(seeds)} seeds; give one an image")


def frames_of(pixels: Pixels | Tokens) -> int:
    """Frames of a clip; 1 of an image."""
    single = 3 if isinstance(pixels, Tensor) else 4
    return pixels.shape[1] if pixels.ndim > single else 1
