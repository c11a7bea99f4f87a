"""What a speaker is asked (Decoding), what it must be able to do (Speech), and what comes back (Said).

Rows are laid out so that images need no copies: B images with T texts each are R = T·B rows, and row t·B + b is the
t-th text of image b. A step feeds one id a row; what an image shows is held once by the speaker.

Shapes: B images, T texts an image, R = T·B rows, V words.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor

from capfilt.errors import ConfigError

MOST_REQUIRED = 8  # so many words are in or not yet in a text in 256 ways, each of which the search tells apart


@dataclass(frozen=True)
class Decoding:
    """How texts are written. The defaults are the sampling that BLIP's captioner ran for CapFilt.

    Three of them are silent in the original: its sampling path fixes `repetition_penalty` at 1.1 whatever the caller
    says, its library filters by `top_k` 50 before `top_p`, and its lengths count the start ([DEC] and the prompt).

    method:       `nucleus` draws, `greedy` takes the likeliest word, `beam` searches for the likeliest text.
    max_length:   most ids in a text, end included.
    min_length:   the end is forbidden until a text has so many ids.
    count_prompt: both lengths count the ids of the start too.
    top_p, top_k, temperature: what nucleus draws from; top_k 0 is no limit. Ignored by greedy and beam.
    repetition_penalty: 1 is none. It acts on logits (nucleus, greedy) or log-probabilities (beam) of all ids seen.
    no_repeat:    no so many ids in a row come twice, those of the start counted as transformers does; 0 is off.
    banned:       words or phrases that no text holds. They are compared as ids: `cat` also bars a longer word that the
                  vocabulary spells `cat ##fish`.
    required:     words or phrases that every text holds, compared likewise; beam only. Each of their ids adds `beams`
                  live texts an image.
    beams:        live texts an image in beam search, and the most it returns.
    groups:       diverse beam search (arXiv 1610.02424): so many searches of beams / groups texts, one after the other
                  in each step; beam only.
    diversity:    what a word's log-probability loses for each text of an earlier group that took it in the same step.
    length_rule:  what beam search divides a text's log-probability by. `official` (transformers 4.15, which BLIP pins):
                  ids with the start, without the end. `hf` (transformers 5): ids written, the end included.
    """

    method: Literal["nucleus", "beam", "greedy"] = "nucleus"
    max_length: int = 20
    min_length: int = 5
    count_prompt: bool = True
    top_p: float = 0.9
    top_k: int = 50
    temperature: float = 1.0
    repetition_penalty: float = 1.1
    no_repeat: int = 0
    banned: tuple[str, ...] = ()
    required: tuple[str, ...] = ()
    beams: int = 3
    groups: int = 1
    diversity: float = 0.5
    length_rule: Literal["official", "hf"] = "official"

    def __post_init__(self) -> None:
        rules = (
            (0 <= self.min_length <= self.max_length, "0 <= min_length <= max_length", "min_length"),
            (0 < self.top_p <= 1, "0 < top_p <= 1", "top_p"),
            (self.top_k >= 0, "top_k >= 0 (0 is no limit)", "top_k"),
            (self.temperature > 0, "temperature > 0 (for the likeliest word use method='greedy')", "temperature"),
            (self.repetition_penalty > 0, "repetition_penalty > 0 (1 is none)", "repetition_penalty"),
            (self.no_repeat >= 0, "no_repeat >= 0 (0 is off)", "no_repeat"),
            (_are_words(self.banned), "a list of words, none of them empty,", "banned"),
            (_are_words(self.required), "a list of words, none of them empty,", "required"),
            (len(self.required) <= MOST_REQUIRED, f"at most {MOST_REQUIRED} words", "required"),
            (self.method == "beam" or not self.required, "method='beam' (no other searches for them)", "required"),
            (self.beams >= 1, "beams >= 1", "beams"),
            (self.groups >= 1, "groups >= 1", "groups"),
            (self.beams % max(1, self.groups) == 0, f"beams % groups == 0 (beams={self.beams})", "groups"),
            (self.diversity >= 0, "diversity >= 0", "diversity"),
        )
        for holds, rule, name in rules:
            if not holds:
                raise ConfigError(f"decoding: {name}={getattr(self, name)}, but {rule} must hold")

    def room(self, start: int) -> int:
        """Most ids that may be written behind a start of `start` ids. Raises ConfigError where that is none."""
        room = self.max_length - start * self.count_prompt
        if room < 1:
            raise ConfigError(
                f"decoding: max_length={self.max_length} leaves no room behind a start of {start} ids; raise it, "
                "or set count_prompt=false"
            )
        return room

    def least(self, start: int) -> int:
        """How many ids must be written before the end may come."""
        return max(0, self.min_length - start * self.count_prompt)


def _are_words(words: Sequence[str]) -> bool:
    return not isinstance(words, str) and all(word.strip() for word in words)


NUCLEUS = Decoding()
BEAM = Decoding(method="beam", repetition_penalty=1.0)
NOCAPS = Decoding(method="beam", repetition_penalty=1.1)


@runtime_checkable
class Speech(Protocol):
    """Texts in the making: it remembers what every row has said."""

    def hear(self, ids: Int[Tensor, "r l"]) -> Float[Tensor, "r v"]:
        """Adds ids to every row; logits of the word after the last. L > 1 only the first time, when R = B."""
        ...

    def follow(self, rows: Int[Tensor, "r"]) -> None:
        """From now on row r continues what row rows[r], of the same image, has said; R may change."""
        ...

    def keep(self, images: Int[Tensor, "b"]) -> None:
        """Only these images, in this order, go on with all their rows."""
        ...


@dataclass(frozen=True)
class Said:
    """One text: what was written behind the start.

    ids:   the end included where it was written.
    logps: log-probability of each id under the model itself, before penalties and filters.
    rank:  what beam search sorts by (its log-probability after penalties, over its length rule); elsewhere the score.
    """

    ids: tuple[int, ...]
    logps: tuple[float, ...]
    rank: float

    @property
    def score(self) -> float:
        """Mean log-probability of an id."""
        return math.fsum(self.logps) / len(self.logps)


def said(ids: list[int], logps: list[float], end: int, rank: float | None = None) -> Said:
    """What was written up to the end, from a row that goes on behind it; rank: the score unless given."""
    count = ids.index(end) + 1 if end in ids else len(ids)
    kept = tuple(logps[:count])
    return Said(tuple(ids[:count]), kept, math.fsum(kept) / count if rank is None else rank)
