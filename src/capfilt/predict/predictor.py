"""A trained Blip at work, numpy in and out: embed, match, re-rank, caption, judge a text's likelihood.

Shapes: B images of (H, W, 3), N image tokens, D width, E compared width, T texts an image, L ids, P pairs.
"""

import contextlib
from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from capfilt.abilities import Caption
from capfilt.blocks.attention import KeysValues
from capfilt.blocks.med import Med, Role
from capfilt.errors import ConfigError
from capfilt.inputs.images import normalize
from capfilt.inputs.texts import clean_caption
from capfilt.inputs.tokenizer import TextTokenizer
from capfilt.models.blip import Blip
from capfilt.predict.decode import NUCLEUS, Decoding, decode
from capfilt.runtime import rng

SEEN_MIB = 2048  # most that the projected images of one batch may hold; a large tower at 384 px takes 40 MiB an image

Pixels = UInt8[np.ndarray, "b h w 3"]


class Predictor:
    """Embedder, Matcher and Captioner around one model, as far as its roles go; a missing role is a ConfigError.

    batch:      text rows (or images) worked on at once; answers do not depend on it.
    max_length: longer texts are cut to so many ids, [CLS] and [SEP] included.
    prompt:     what every caption starts with ("a picture of " in BLIP's COCO captioner). It is given, not
                written: no part of the caption, its score or its likelihood.
    """

    def __init__(
        self, model: Blip, tokenizer: TextTokenizer, batch: int = 256, max_length: int = 35, prompt: str = ""
    ) -> None:
        if batch < 1:
            raise ConfigError(f"batch={batch}: at least one row at a time")
        special = model.config.special
        have = (tokenizer.pad_id, tokenizer.cls_id, tokenizer.sep_id, tokenizer.dec_id, tokenizer.enc_id)
        want = (special.pad, special.cls, special.sep, special.dec, special.enc)
        if have != want or len(tokenizer) > model.config.text.vocab:
            raise ConfigError(
                f"the tokenizer ({len(tokenizer)} words, [PAD] [CLS] [SEP] [DEC] [ENC] at {have}) is not the model's "
                f"({model.config.text.vocab} words, at {want}); use the one that was saved with the weights"
            )
        self.model, self.tokenizer, self.batch = model, tokenizer, batch
        self.max_length = min(max_length, model.config.text.positions)
        self.start = [special.dec, *tokenizer.encode([prompt], self.max_length)[0][1:-1].tolist()]
        self.device = next(model.parameters()).device

    # ---- compared space -----------------------------------------------------------------------------------------

    def embed_images(self, pixels: Pixels) -> Float[np.ndarray, "b e"]:
        """Images (B, H, W, 3) → unit vectors (B, E)."""
        self._need("read")
        out = np.zeros((len(pixels), self.model.config.embed), np.float32)
        with self._still():
            for part in _parts(len(pixels), self.batch):
                out[part] = _numpy(self.model.image_vec(self.model.vit(self._tensor(pixels[part]), cls_only=True)))
        return out

    def embed_texts(self, texts: Sequence[str]) -> Float[np.ndarray, "b e"]:
        """Texts → unit vectors (B, E)."""
        self._need("read")
        rows = self._tokens(texts)
        out = np.zeros((len(rows), self.model.config.embed), np.float32)
        order = np.argsort([len(row) for row in rows], kind="stable")
        with self._still():
            for part in _parts(len(rows), self.batch):
                out[order[part]] = _numpy(self.model.text_vec(*self._padded([rows[i] for i in order[part]])))
        return out

    # ---- matching -----------------------------------------------------------------------------------------------

    def match(self, pixels: Pixels, texts: Sequence[Sequence[str]]) -> list[list[tuple[float, float]]]:
        """For image b and each of its texts: (probability of a match in [0, 1], cosine in [-1, 1]).

        Every image is encoded once, whatever the number of its texts, which may differ; none gives an empty list.
        """
        self._need("read", "look")
        _check_texts(texts, len(pixels))
        rows, owner = self._encode(texts)
        text_vec = self.embed_texts([t for ts in texts for t in ts])
        image_vec = np.zeros((len(pixels), self.model.config.embed), np.float32)
        probability = np.zeros(len(rows), np.float32)
        with self._still():
            for images, blocks in self._plan(rows, owner, len(pixels)):
                image = self.model.vit(self._tensor(pixels[images]))
                image_vec[images] = _numpy(self.model.image_vec(image))
                for at, logits in self._looked(image, rows, blocks):
                    probability[at] = _numpy(logits.softmax(dim=-1)[:, 1])
        cosine = (image_vec[owner] * text_vec).sum(axis=1)
        pairs = zip(probability.tolist(), cosine.tolist(), strict=True)
        return [[next(pairs) for _ in ts] for ts in texts]

    def encode_images(self, pixels: Pixels) -> Float[np.ndarray, "b n d"]:
        """Image tokens, float32, for `itm_logits`: encode once, ask many times."""
        size = self.model.config.vit
        out = np.zeros((len(pixels), size.tokens, size.width), np.float32)
        with self._still():
            for part in _parts(len(pixels), self.batch):
                out[part] = _numpy(self.model.vit(self._tensor(pixels[part])))
        return out

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
        self._need("look")
        _check_texts([texts], 1)
        pairs, back = np.unique(image_idx.astype(np.int64) * len(texts) + text_idx, return_inverse=True)
        encoded = self._tokens(texts)
        rows = [encoded[i] for i in pairs % max(1, len(texts))]
        out = np.zeros(len(pairs), np.float32)
        with self._still():
            for images, blocks in self._plan(rows, pairs // max(1, len(texts)), len(features)):
                for at, logits in self._looked(torch.from_numpy(features[images]).to(self.device), rows, blocks):
                    out[at] = _numpy(logits[:, 1])
        return out[back]

    # ---- speaking -----------------------------------------------------------------------------------------------

    def caption(self, pixels: Pixels, seeds: Sequence[int], decoding: Decoding = NUCLEUS) -> list[Caption]:
        """One caption an image. seeds: one an image; a caption hangs on its image and seed alone (nucleus only)."""
        self._need("speak")
        if len(seeds) != len(pixels):
            raise ConfigError(f"caption: {len(pixels)} images but {len(seeds)} seeds; give one an image")
        special, room = self.model.config.special, decoding.room(len(self.start))
        if len(self.start) + room > self.model.config.text.positions:
            raise ConfigError(
                f"decoding: a start of {len(self.start)} ids and {room} more pass the model's "
                f"{self.model.config.text.positions} positions; lower max_length"
            )
        texts = decoding.beams if decoding.method == "beam" else 1
        said = []
        with self._still():
            for part in _parts(len(pixels), self._images_at_once(texts)):
                image = self.model.vit(self._tensor(pixels[part]))
                uniforms = None
                if decoding.method == "nucleus":
                    drawn = np.stack([rng("caption", seed).random(room) for seed in seeds[part]])
                    uniforms = torch.from_numpy(drawn).to(self.device)
                start = torch.tensor([self.start] * len(image), device=self.device)
                speech = BlipSpeech(self.model.text, self.model.text.project(image), len(self.tokenizer))
                said += [s[0] for s in decode(speech, start, decoding, special.sep, special.pad, uniforms)]
        return [Caption(self.tokenizer.decode(s.ids), s.score, s.ids) for s in said]

    def log_likelihood(self, pixels: Pixels, texts: Sequence[Sequence[str]]) -> list[list[tuple[float, int]]]:
        """For image b and each of its texts: (sum of the log-probabilities of its ids, their number), end included."""
        self._need("speak")
        _check_texts(texts, len(pixels))
        bodies, owner = self._encode(texts)
        start = np.array(self.start, np.int32)
        longest = self.model.config.text.positions + 1  # the last id is only predicted
        rows = [np.concatenate((start, body[1:]))[:longest] for body in bodies]
        found: list[tuple[float, int]] = [(0.0, 0)] * len(rows)
        with self._still():
            for images, blocks in self._plan(rows, owner, len(pixels)):
                seen = self.model.text.project(self.model.vit(self._tensor(pixels[images])))
                for slots in blocks:
                    ids, mask = self._padded([rows[i] if i >= 0 else start for i in slots])
                    states = self.model.text.speak(ids[:, :-1], mask[:, :-1], seen)
                    labels = ids[:, 1:].masked_fill(mask[:, 1:] == 0, -100)
                    labels[:, : len(start) - 1] = -100
                    counted = labels >= 0
                    logits = self.model.text.word_logits(states[counted])[:, : len(self.tokenizer)].float()
                    logps = torch.zeros(labels.shape, device=self.device)
                    logps[counted] = -F.cross_entropy(logits, labels[counted], reduction="none")
                    sums = zip(logps.sum(dim=1).tolist(), counted.sum(dim=1).tolist(), strict=True)
                    for i, pair in zip(slots.tolist(), sums, strict=True):
                        if i >= 0:
                            found[i] = pair
        pairs = iter(found)
        return [[next(pairs) for _ in ts] for ts in texts]

    # ---- rows and images ----------------------------------------------------------------------------------------

    def _encode(self, texts: Sequence[Sequence[str]]) -> tuple[list[np.ndarray], np.ndarray]:
        """All texts as id rows in one list, and the image each belongs to."""
        flat = [t for ts in texts for t in ts]
        return self._tokens(flat), np.repeat(np.arange(len(texts)), [len(t) for t in texts])

    def _tokens(self, texts: Sequence[str]) -> list[np.ndarray]:
        return self.tokenizer.encode([clean_caption(text) for text in texts], self.max_length)

    def _plan(
        self, rows: list[np.ndarray], owner: Int[np.ndarray, "p"], images: int
    ) -> Iterator[tuple[np.ndarray, list[np.ndarray]]]:
        """Cuts rows about images into pieces: (n images, blocks of T·n row numbers, image-minor, -1 for none).

        Images with alike numbers and lengths of texts come together, so that little is padded; images without texts
        do not come.
        """
        mine: list[list[int]] = [[] for _ in range(images)]
        for i in np.argsort([len(row) for row in rows], kind="stable").tolist():
            mine[owner[i]].append(i)
        asked = [i for i in range(images) if mine[i]]
        asked.sort(key=lambda i: (len(mine[i]), len(rows[mine[i][-1]]), len(rows[mine[i][0]])))
        while asked:
            size = self._images_at_once(len(mine[asked[0]]))
            chunk, asked = asked[:size], asked[size:]
            deepest = max(len(mine[i]) for i in chunk)
            slots = np.array([mine[i] + [-1] * (deepest - len(mine[i])) for i in chunk]).T
            high = max(1, self.batch // len(chunk))
            yield np.array(chunk), [slots[t : t + high].flatten() for t in range(0, deepest, high)]

    def _looked(
        self, image: Tensor, rows: list[np.ndarray], blocks: list[np.ndarray]
    ) -> Iterator[tuple[np.ndarray, Tensor]]:
        """(row numbers, their match logits (n, 2)) block by block; the image side is projected once."""
        seen = self.model.text.project(image)
        nothing = np.array([self.model.config.special.cls, self.model.config.special.sep], np.int32)
        for slots in blocks:
            ids, mask = self._padded([rows[i] if i >= 0 else nothing for i in slots])
            real = slots >= 0
            yield slots[real], self.model.match_logits(ids, mask, seen)[torch.from_numpy(real).to(self.device)]

    def _images_at_once(self, texts: int) -> int:
        """How many images go together when each has so many texts: `batch` rows, within the memory set above."""
        size = self.model.config.vit
        floats = size.tokens * 2 * self.model.config.text.width * self.model.config.text.depth
        return max(1, min(self.batch // texts, SEEN_MIB * 2**20 // (4 * floats)))

    def _padded(self, rows: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
        ids, mask = self.tokenizer.pad(rows)
        return torch.from_numpy(ids).to(self.device), torch.from_numpy(mask).to(self.device)

    def _tensor(self, pixels: np.ndarray) -> Tensor:
        px = self.model.config.vit.px
        if pixels.shape[1:] != (px, px, 3) or pixels.dtype != np.uint8:
            raise ConfigError(
                f"pixels are {pixels.dtype} of {pixels.shape[1:]}, this model sees uint8 of {(px, px, 3)}; "
                "inputs.images.to_pixels makes them"
            )
        return normalize(pixels).to(self.device)

    def _need(self, *roles: Role) -> None:
        missing = [role for role in roles if role not in self.model.config.roles]
        if missing:
            raise ConfigError(
                f"this needs a model that can {' and '.join(missing)}; the roles of this one are "
                f"{', '.join(self.model.config.roles)}"
            )

    @contextlib.contextmanager
    def _still(self) -> Iterator[None]:
        """No gradients, no dropout; a model that was in training goes back to it."""
        training = self.model.training
        self.model.eval()
        try:
            with torch.inference_mode():
                yield
        finally:
            self.model.train(training)


class BlipSpeech:
    """Blip's captions in the making, for `decode`: projected images and what every row has said.

    words: how many ids may be said; a word table can be longer than its vocabulary. None for all.
    """

    def __init__(self, text: Med, seen: list[KeysValues], words: int | None = None) -> None:
        self.text, self.seen, self.words = text, seen, words
        self.cache: list[KeysValues] | None = None

    def hear(self, ids: Int[Tensor, "r l"]) -> Float[Tensor, "r v"]:
        """Logits of the next word after adding ids to every row."""
        states, self.cache = self.text.speak_on(ids, self.seen, self.cache)
        return self.text.word_logits(states[:, -1])[:, : self.words].float()

    def follow(self, rows: Int[Tensor, "r"]) -> None:
        """Row r goes on from row rows[r]."""
        self.cache = [(k[rows], v[rows]) for k, v in self.cache or []]

    def keep(self, images: Int[Tensor, "b"]) -> None:
        """Only these images go on."""
        cache, before = self.cache or [], len(self.seen[0][0])
        texts = len(cache[0][0]) // before
        rows = (torch.arange(texts, device=images.device)[:, None] * before + images).flatten()
        self.seen = [(k[images], v[images]) for k, v in self.seen]
        self.follow(rows)


def _parts(total: int, size: int) -> list[slice]:
    return [slice(i, i + size) for i in range(0, total, size)]


def _numpy(x: Tensor) -> np.ndarray:
    return x.float().cpu().numpy()


def _check_texts(texts: Sequence[Sequence[str]] | Sequence[str], images: int) -> None:
    if len(texts) != images:
        raise ConfigError(f"{images} images need as many lists of texts, one an image; got {len(texts)}")
    if any(isinstance(ts, str) for ts in texts):
        raise ConfigError("a list of texts is needed where one text was given: write [text]")
