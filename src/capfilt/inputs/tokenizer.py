"""Text ⇄ token ids: WordPiece as BERT uses it, plus BLIP's own two marks.

[DEC] starts a text to be written, [ENC] one to be judged with the image; they stand last in the vocabulary (ids 30522
and 30523 behind bert-base-uncased), so that a vocabulary from elsewhere keeps its ids.

Shapes: B texts, L tokens.
"""

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise
from operator import index
from pathlib import Path
from typing import SupportsIndex

import numpy as np
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers

from capfilt import files
from capfilt.errors import ConfigError, DataError

SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
OWN = ("[DEC]", "[ENC]")
FILE = "tokenizer.json"
# BERT's tidying of decoded text, in its order.
_TIDY = [(f" {mark}", mark) for mark in ".?!,"] + [(" ' ", "'")]
_TIDY += [(f" {end}", end) for end in ("n't", "'m", "'s", "'ve", "'re")]


class TextTokenizer:
    """A WordPiece vocabulary with lower-casing. Make one with `train`, `from_vocab` or `load`."""

    def __init__(self, tokenizer: Tokenizer, where: str):
        missing = [name for name in SPECIALS if tokenizer.token_to_id(name) is None]
        if missing:
            raise DataError(f"{where}: the vocabulary lacks {' '.join(missing)}; a BERT vocabulary is needed")
        tokenizer.no_truncation()
        tokenizer.no_padding()
        tokenizer.add_special_tokens([AddedToken(name, normalized=False, special=True) for name in SPECIALS + OWN])
        self._tokenizer = tokenizer
        ids = [i for name in SPECIALS + OWN if (i := tokenizer.token_to_id(name)) is not None]  # all: just added
        self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id, self.dec_id, self.enc_id = ids
        self._hidden = frozenset(ids)

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int = 512) -> "TextTokenizer":
        """Learns a vocabulary of at most vocab_size entries, specials included. The order of texts does not matter.

        Raises:
            ConfigError: vocab_size leaves no room for letters.
            DataError: no text holds a word.
        """
        room = vocab_size - len(SPECIALS) - len(OWN)
        if room < 2:
            raise ConfigError(f"vocab_size={vocab_size}: {vocab_size - room} go to special tokens; give 64 or more")
        normalise, split = _normaliser(), pre_tokenizers.BertPreTokenizer()
        words: Counter[str] = Counter()
        for text in texts:
            words.update(word for word, _ in split.pre_tokenize_str(normalise.normalize_str(text)))
        if not words:
            raise DataError("no text holds a word to learn a vocabulary from")
        return cls(_wordpiece([*SPECIALS, *learn_pieces(words, room)]), "the learned vocabulary")

    @classmethod
    def from_vocab(cls, path: Path | str) -> "TextTokenizer":
        """Reads a BERT `vocab.txt` (one entry a line), a `tokenizer.json`, or a folder that holds one of them.

        Raises:
            DataError: nothing of that kind there, not readable as such, or a special token is missing.
        """
        path = Path(path)
        if path.is_dir():
            found = [path / name for name in (FILE, "vocab.txt") if (path / name).is_file()]
            if not found:
                raise DataError(f"{path}: holds neither {FILE} nor vocab.txt")
            path = found[0]
        if not path.is_file():
            raise DataError(f"{path}: no such file (a vocab.txt, a {FILE}, or a folder with one is needed)")
        try:
            text = path.read_text(encoding="utf-8")
            if path.suffix != ".json":
                return cls(_wordpiece([line.rstrip("\r") for line in text.removesuffix("\n").split("\n")]), str(path))
            tokenizer = Tokenizer.from_str(text)
        except DataError:
            raise
        except Exception as error:  # tokenizers raises bare Exception
            raise DataError(f"{path}: not a vocabulary ({error})") from None
        if not isinstance(tokenizer.model, models.WordPiece):
            raise DataError(f"{path}: a {type(tokenizer.model).__name__} tokenizer; BLIP reads WordPiece")
        return cls(tokenizer, str(path))

    @classmethod
    def from_json(cls, text: str, where: str) -> "TextTokenizer":
        """Reads what `to_json` gave. Raises DataError for what is no vocabulary."""
        try:
            return cls(Tokenizer.from_str(text), where)
        except Exception as error:  # tokenizers raises bare Exception
            raise DataError(f"{where}: not a vocabulary ({error})") from None

    def to_json(self) -> str:
        """All of it as one string."""
        return self._tokenizer.to_str()

    @classmethod
    def load(cls, folder: Path | str) -> "TextTokenizer":
        """Reads what `save` wrote."""
        return cls.from_vocab(Path(folder) / FILE)

    def save(self, folder: Path | str) -> None:
        """Writes `tokenizer.json` into the folder, whole or not at all."""
        files.write_text(Path(folder) / FILE, self._tokenizer.to_str(pretty=True) + "\n")

    @property
    def marks(self) -> dict[str, int]:
        """The ids that steer a text transformer, by the names of `blocks.med.SpecialIds`."""
        return {"pad": self.pad_id, "cls": self.cls_id, "sep": self.sep_id, "dec": self.dec_id, "enc": self.enc_id}

    def __len__(self) -> int:
        return self._tokenizer.get_vocab_size(with_added_tokens=True)

    def encode(self, texts: Sequence[str], max_length: int = 30) -> list[np.ndarray]:
        """B texts → B arrays of int32 ids: [CLS] … [SEP], at most max_length long, the [SEP] always kept."""
        if max_length < 2:
            raise ConfigError(f"max_length={max_length}: [CLS] and [SEP] alone take 2")
        if isinstance(texts, str):
            raise ConfigError("encode takes a list of texts, not one text: write [text]")
        bodies = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [np.array([self.cls_id, *b.ids[: max_length - 2], self.sep_id], np.int32) for b in bodies]

    def pad(self, rows: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """B id arrays → ids (B, L) and mask (B, L), both int64, L the longest row; the mask is 1 on tokens."""
        length = max((len(row) for row in rows), default=0)
        ids = np.full((len(rows), length), self.pad_id, np.int64)
        mask = np.zeros((len(rows), length), np.int64)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = row
            mask[i, : len(row)] = 1
        return ids, mask

    def decode(self, ids: Iterable[SupportsIndex]) -> str:
        """Ids → text: specials left out, pieces joined, spaces before punctuation closed ("it's here.")."""
        words = []
        for i in map(index, ids):
            word = self._tokenizer.id_to_token(i)
            if word is None:
                raise DataError(f"token id {i} is outside the vocabulary of {len(self)}: weights and tokenizer differ")
            if i not in self._hidden:
                words.append(word)
        text = " ".join(words).replace(" ##", "").strip()
        for wide, close in _TIDY:
            text = text.replace(wide, close)
        return text


def learn_pieces(words: Counter[str], size: int) -> list[str]:
    """At most `size` word pieces: letters first, then the most frequent neighbours joined, again and again.

    Ties fall to the alphabet, so the same counts give the same list on every machine.
    """
    letters: Counter[str] = Counter()
    spelled = []  # [count, pieces] of each word
    for word, count in sorted(words.items()):
        pieces = [word[0], *(f"##{c}" for c in word[1:])]
        spelled.append((count, pieces))
        for piece in pieces:
            letters[piece] += count
    kept = sorted(letters, key=lambda piece: (-letters[piece], piece))[:size]
    learned = dict.fromkeys(sorted(kept))
    pairs: Counter[tuple[str, str]] = Counter()
    places = defaultdict(set)  # pair → words that may hold it
    for i, (count, pieces) in enumerate(spelled):
        for pair in pairwise(pieces):
            if pair[0] in learned and pair[1] in learned:
                pairs[pair] += count
                places[pair].add(i)
    heap = [(-count, pair) for pair, count in pairs.items()]
    heapq.heapify(heap)
    while heap and len(learned) < size:
        negative, pair = heapq.heappop(heap)
        if pairs[pair] != -negative:  # an old entry: its count has changed since
            continue
        joined = pair[0] + pair[1].removeprefix("##")
        learned[joined] = None
        changed = set()
        for i in places.pop(pair):
            count, pieces = spelled[i]
            merged = _join(pieces, pair, joined)
            for old in pairwise(pieces):
                pairs[old] -= count * (old in pairs)
                changed.add(old)
            for new in pairwise(merged):
                if new[0] in learned and new[1] in learned:
                    pairs[new] += count
                    places[new].add(i)
                    changed.add(new)
            spelled[i] = (count, merged)
        for other in changed:
            if pairs[other] > 0:
                heapq.heappush(heap, (-pairs[other], other))
    return list(learned)


def _join(pieces: list[str], pair: tuple[str, str], joined: str) -> list[str]:
    merged: list[str] = []
    i = 0
    while i < len(pieces):
        if tuple(pieces[i : i + 2]) == pair:
            merged.append(joined)
            i += 2
        else:
            merged.append(pieces[i])
            i += 1
    return merged


def _normaliser() -> normalizers.Normalizer:
    return normalizers.BertNormalizer(clean_text=True, handle_chinese_chars=True, strip_accents=None, lowercase=True)


def _wordpiece(vocabulary: list[str]) -> Tokenizer:
    entries = {word: i for i, word in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.WordPiece(entries, unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = _normaliser()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer
