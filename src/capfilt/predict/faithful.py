"""Where the original contradicts itself, one switch a case: all off is the right behaviour, on is the original's."""

import dataclasses
import difflib
from collections.abc import Iterable
from dataclasses import dataclass

from capfilt.errors import ConfigError


@dataclass(frozen=True)
class Faithful:
    """Each switch brings back one behaviour of the published code that its own training contradicts.

    match_cls:         texts keep [CLS] when they are matched with an image, as in the original's `BLIP_ITM` class and
                       in transformers. The weights were trained with [ENC] there.
    question_cls:      questions keep [CLS], as in transformers. The weights were trained with [ENC].
    question_padding:  a generated answer sees the padding of shorter questions of its batch, as in the original's
                       `generate`; it then depends on the batch. Single questions are the same either way.
    rank_smoothing:    candidates are ranked by their label-smoothed loss (0.1), as in the original's `rank`, in place
                       of their log-probability.
    rank_torch110:     with `rank_smoothing`: the smoothing of the runtime that the original pins, which also counts
                       padding (pytorch#73205), so that a score depends on the longest candidate.
    random_swap:       in half of the statements about two images the images are exchanged, and left with right in the
                       words, when they are judged, too: NLVR2's training augmentation runs in the original's
                       evaluation. Drawn by each row's seed.
    images_as_stored:  an image file's EXIF turn is ignored and transparency is dropped, not laid on white.
    """

    match_cls: bool = False
    question_cls: bool = False
    question_padding: bool = False
    rank_smoothing: bool = False
    rank_torch110: bool = False
    random_swap: bool = False
    images_as_stored: bool = False

    @classmethod
    def of(cls, names: "Iterable[str] | Faithful") -> "Faithful":
        """The switches named, on. Raises ConfigError for a name that is none of them."""
        if isinstance(names, Faithful):
            return names
        known = [f.name for f in dataclasses.fields(cls)]
        chosen = [names] if isinstance(names, str) else list(names)
        for name in chosen:
            if name not in known:
                close = difflib.get_close_matches(name, known, n=1)
                hint = f" Did you mean {close[0]!r}?" if close else ""
                raise ConfigError(f"faithful={name!r} is no switch.{hint} Known: {', '.join(known)}")
        return cls(**dict.fromkeys(chosen, True))


RIGHT = Faithful()
