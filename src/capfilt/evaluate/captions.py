"""How close written captions come to human ones: BLEU-1..4, ROUGE-L, CIDEr as the COCO caption evaluation counts them.

Sources: BLEU (Papineni et al. 2002), ROUGE-L (Lin 2004), CIDEr and CIDEr-D (Vedantam et al., arXiv 1411.5726), COCO
caption evaluation (arXiv 1504.00325), whose smoothing constants and choices are followed so that numbers compare.
Everything lies in [0, 1] except CIDEr, in [0, 10]. The number that papers print as "CIDEr" is CIDEr-D: here `cider`.
METEOR and SPICE are Java programs: `extra_scores` runs them where the `metrics` extra and Java are installed.
"""

import math
import shutil
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain

import numpy as np

from capfilt.errors import ConfigError, DataError
from capfilt.evaluate import ptb

ORDERS = 4
TINY, SMALL = 1e-15, 1e-9  # keep a BLEU without a match off zero and its denominators off zero
BETA = 1.2  # ROUGE-L: recall counts this much more than precision
SIGMA = 6.0  # CIDEr-D: how many words of difference in length are forgiven
EXTRAS = ("meteor", "spice")

Grams = tuple[Counter[tuple[str, ...]], ...]  # one counter for each order


@dataclass(frozen=True)
class CaptionScores:
    """Corpus values, and for each image its own under the same names.

    bleu1..bleu4: share of n-grams up to that order that a reference has too, times the penalty for brevity, [0, 1].
    rouge_l:      longest common subsequence, F with beta 1.2, [0, 1].
    cider:        CIDEr-D, what the COCO evaluation prints as CIDEr, [0, 10].
    cider_plain:  CIDEr before the D: no clipping, no penalty for length (and no stemming), [0, 10].
    per_image:    name → (I,) float64. BLEU's corpus value is not their mean, the others' is.
    """

    bleu1: float
    bleu2: float
    bleu3: float
    bleu4: float
    rouge_l: float
    cider: float
    cider_plain: float
    per_image: Mapping[str, np.ndarray] = field(repr=False)

    def summary(self) -> dict[str, float]:
        """The corpus values by name."""
        return {name: getattr(self, name) for name in self.per_image}


def score_captions(
    hypotheses: Sequence[str],
    references: Sequence[Sequence[str]],
    tokenize: bool = True,
    corpus: Sequence[Sequence[str]] | None = None,
) -> CaptionScores:
    """Scores one caption for each of I images against that image's references.

    Args:
        hypotheses: I captions; an empty one scores 0.
        references: for each image at least one human caption.
        tokenize: split the texts as `ptb` does; False where they are tokenised already (split at spaces).
        corpus: references of other images to take CIDEr's document frequencies from; `references` unless told.

    Raises:
        DataError: no image, another number of references than captions, or an image without a reference.
    """
    _check(hypotheses, references)
    split = ptb.words if tokenize else str.split
    said = [split(text) for text in hypotheses]
    human = [[split(text) for text in texts] for texts in references]
    said_grams = [_grams(words) for words in said]
    human_grams = [[_grams(words) for words in texts] for texts in human]
    seen = human_grams if corpus is None else [[_grams(split(text)) for text in texts] for texts in corpus]
    if len(seen) < 2:
        warnings.warn(
            f"CIDEr is 0 here: it weighs words by how few images have them, and there is {len(seen)} image. "
            "Score more images at once, or give `corpus`.",
            stacklevel=2,
        )
    bleu, bleu_each = _bleu(said, human, said_grams, human_grams)
    rouge = np.array([_rouge_l(words, texts) for words, texts in zip(said, human, strict=True)])
    cider, plain = _cider(said_grams, human_grams, seen)
    each = {f"bleu{n + 1}": bleu_each[:, n] for n in range(ORDERS)}
    each |= {"rouge_l": rouge, "cider": cider, "cider_plain": plain}
    bleu1, bleu2, bleu3, bleu4 = bleu.tolist()
    rest = {name: float(values.mean()) for name, values in each.items() if not name.startswith("bleu")}
    return CaptionScores(bleu1, bleu2, bleu3, bleu4, rest["rouge_l"], rest["cider"], rest["cider_plain"], each)


def _check(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> None:
    if not hypotheses or len(hypotheses) != len(references):
        raise DataError(
            f"score_captions: {len(hypotheses)} captions against references of {len(references)} images; "
            "give one caption for each image, and at least one image."
        )
    bare = next((i for i, texts in enumerate(references) if not texts), None)
    if bare is not None:
        raise DataError(f"score_captions: image {bare} has no reference caption. Leave such images out.")


def _grams(words: list[str]) -> Grams:
    return tuple(Counter(zip(*(words[i:] for i in range(n)), strict=False)) for n in range(1, ORDERS + 1))


def _bleu(
    said: list[list[str]], human: list[list[list[str]]], said_grams: list[Grams], human_grams: list[list[Grams]]
) -> tuple[np.ndarray, np.ndarray]:
    """(4,) of the corpus and (I, 4) of each image."""
    right = np.zeros((len(said), ORDERS))
    for i, (grams, texts) in enumerate(zip(said_grams, human_grams, strict=True)):
        for n, counts in enumerate(grams):
            right[i, n] = sum(min(c, max(text[n][gram] for text in texts)) for gram, c in counts.items())
    length = np.array([len(words) for words in said], float)
    # The reference whose length is closest counts for brevity; of two equally close ones the shorter.
    wanted = [min((abs(len(t) - len(s)), len(t)) for t in texts)[1] for s, texts in zip(said, human, strict=True)]
    made = np.maximum(length[:, None] - np.arange(ORDERS), 0)
    return (
        _bleu_of(right.sum(0), made.sum(0), float(length.sum()), float(sum(wanted))),
        _bleu_of(right, made, length[:, None], np.array(wanted, float)[:, None]),
    )


def _bleu_of(right: np.ndarray, made: np.ndarray, length: np.ndarray | float, wanted: np.ndarray | float) -> np.ndarray:
    logs = np.log((right + TINY) / (made + SMALL))
    means = np.cumsum(logs, axis=-1) / np.arange(1, ORDERS + 1)
    ratio = (length + TINY) / (wanted + SMALL)
    return np.exp(means + np.minimum(0.0, 1 - 1 / ratio))


def _rouge_l(words: list[str], texts: list[list[str]]) -> float:
    """F of the best precision and the best recall over the references (they may come from different ones)."""
    common = [_common(words, text) for text in texts]
    precision = max(common) / max(len(words), 1)
    recall = max(c / max(len(text), 1) for c, text in zip(common, texts, strict=True))
    if not precision or not recall:
        return 0.0
    return (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision)


def _common(a: list[str], b: list[str]) -> int:
    """Length of the longest common subsequence, a row of the table in one integer (Hyyrö 2004)."""
    at: dict[str, int] = {}
    for i, word in enumerate(b):
        at[word] = at.get(word, 0) | 1 << i
    whole = (1 << len(b)) - 1
    row = whole  # a zero bit is a step up of the table's row
    for word in a:
        hit = row & at.get(word, 0)
        row = ((row + hit) | (row - hit)) & whole
    return len(b) - row.bit_count()


def _cider(said: list[Grams], human: list[list[Grams]], seen: list[list[Grams]]) -> tuple[np.ndarray, np.ndarray]:
    """CIDEr-D and plain CIDEr of each image: (I,) and (I,)."""
    images = Counter(chain.from_iterable({g for text in texts for grams in text for g in grams} for texts in seen))
    total = math.log(max(len(seen), 1))
    weight = {gram: total - math.log(count) for gram, count in images.items()}

    def vectors(grams: Grams) -> tuple[list[dict[tuple[str, ...], float]], list[float], int]:
        """Weighted counts and their norm for each order, and the length as the evaluation takes it: in pairs."""
        weighted = [{g: c * weight.get(g, total) for g, c in counts.items()} for counts in grams]
        return weighted, [math.sqrt(sum(w * w for w in v.values())) for v in weighted], grams[1].total()

    scores = np.zeros((2, len(said)))
    for i, (hypothesis, texts) in enumerate(zip(said, human, strict=True)):
        mine, my_norms, my_length = vectors(hypothesis)
        for text in texts:
            theirs, norms, length = vectors(text)
            penalty = math.exp(-((my_length - length) ** 2) / (2 * SIGMA**2))
            for n in range(ORDERS):
                if my_norms[n] and norms[n]:
                    scale = 10 / (ORDERS * len(texts) * my_norms[n] * norms[n])
                    shared = [(w, theirs[n][g]) for g, w in mine[n].items() if g in theirs[n]]
                    scores[0, i] += sum(min(a, b) * b for a, b in shared) * penalty * scale
                    scores[1, i] += sum(a * b for a, b in shared) * scale
    return scores[0], scores[1]


def extra_scores(
    hypotheses: Sequence[str],
    references: Sequence[Sequence[str]],
    names: Sequence[str] = ("meteor",),
    tokenize: bool = True,
) -> dict[str, tuple[float, np.ndarray]] | None:
    """METEOR and SPICE by their own Java programs, from the optional package pycocoevalcap.

    SPICE fetches its parser (hundreds of MB) the first time it runs, so it is only run when named.

    Returns:
        name → (corpus value, (I,) for each image), both in [0, 1]; None, and a warning that says what to install,
        where the package or Java is not here.

    Raises:
        ConfigError: a name that is neither meteor nor spice.
        DataError: as `score_captions`.
    """
    unknown = [name for name in names if name not in EXTRAS]
    if unknown:
        raise ConfigError(f"extra_scores: {', '.join(unknown)} is none of {', '.join(EXTRAS)}")
    _check(hypotheses, references)
    if shutil.which("java") is None:
        _warn_absent(names, "Java is not on the PATH", "Install a Java runtime (8 or later)")
        return None
    try:
        from pycocoevalcap.meteor.meteor import Meteor
        from pycocoevalcap.spice.spice import Spice
    except ImportError as error:
        _warn_absent(names, f"{error.name} is not installed", "Run `pip install 'capfilt[metrics]'`")
        return None
    split = ptb.tokenize if tokenize else str
    said = {i: [split(text)] for i, text in enumerate(hypotheses)}
    human = {i: [split(text) for text in texts] for i, texts in enumerate(references)}
    found = {}
    for name in names:
        whole, each = (Meteor if name == "meteor" else Spice)().compute_score(human, said)
        values = each if name == "meteor" else [image["All"]["f"] for image in each]
        found[name] = (float(whole), np.array(values, float))
    return found


def _warn_absent(names: Sequence[str], why: str, remedy: str) -> None:
    warnings.warn(f"{', '.join(names)} not computed: {why}. {remedy}; the other scores do not need it.", stacklevel=3)
