"""What a published checkpoint says about its authors' own picture, beside what it must say (`weights.catalog`)."""

import io
import math
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from capfilt.errors import DataError
from capfilt.predict.faithful import Faithful
from capfilt.predict.use import Model
from capfilt.weights.catalog import DEMO, Entry, Expected

NEAR = 0.01  # of probabilities and cosines: they were published to three digits, by a runtime with another epsilon
MOST_MIB, PATIENCE_S = 16, 30


@dataclass(frozen=True)
class Checked:
    """One answer. right: whether it is the published one."""

    task: str
    asked: str
    expected: str
    got: str
    right: bool
    source: str


def demo_picture(path: str | Path | None = None) -> bytes:
    """The picture of the authors' demo: from a file, else from where they published it.

    Raises DataError where it cannot be had.
    """
    if path is not None:
        try:
            return Path(path).expanduser().read_bytes()
        except OSError as error:
            raise DataError(f"{path}: {error.strerror}") from None
    try:
        with urllib.request.urlopen(DEMO, timeout=PATIENCE_S) as answer:
            data = io.BytesIO(answer.read(MOST_MIB * 2**20 + 1)).getvalue()
    except (urllib.error.URLError, OSError) as error:
        reason = getattr(error, "reason", error)
        raise DataError(f"{DEMO}: {reason}; download it elsewhere and give it with --image FILE") from None
    if len(data) > MOST_MIB * 2**20:
        raise DataError(f"{DEMO}: larger than {MOST_MIB} MiB, so not the picture that was published")
    return data


def verify(model: Model, entry: Entry, picture: bytes) -> Iterator[Checked]:
    """Asks the model what is known of it, one answer at a time. `picture`: the authors' demo picture."""
    for expected in entry.expected:
        wanted, got, right = _TASKS[expected.task](_as_published(model, entry, expected), expected, picture)
        yield Checked(expected.task, expected.asked, wanted, got, right, expected.source)


def _as_published(model: Model, entry: Entry, expected: Expected) -> Model:
    """The model with the quirks of whoever published the answer."""
    switches = Faithful(match_cls=expected.first == "cls", question_cls=entry.publisher == "hub")
    return Model(model.model, model.tokenizer, switches)


def _captioned(model: Model, expected: Expected, picture: bytes) -> tuple[str, str, bool]:
    settings = {"beams": 1, "min_length": 0} if expected.task == "caption" else {"beams": 3}
    caption = model.caption(picture, prompt=expected.asked, **settings)
    start = model.tokenizer.encode([expected.asked])[0][1:-1].tolist()
    ids = (model.tokenizer.dec_id, *start, *caption.tokens)
    right = caption.error is None and caption.text == expected.answer and expected.ids in ((), ids)
    return expected.answer, caption.error or caption.text, right


def _asked(model: Model, expected: Expected, picture: bytes) -> tuple[str, str, bool]:
    answer = model.ask(picture, expected.asked)
    return expected.answer, answer.error or answer.text, answer.text == expected.answer


def _matched(model: Model, expected: Expected, picture: bytes) -> tuple[str, str, bool]:
    match = model.match(picture, expected.asked)
    known = [(expected.itm, match.probability), (expected.itc, match.cosine)]
    right = all(want is None or math.isclose(want, got, abs_tol=NEAR) for want, got in known)
    told = f"probability {match.probability:.4f}, cosine {match.cosine:.4f}"
    return f"probability {expected.itm:.4f}, cosine {expected.itc:.4f}", match.error or told, right


_TASKS = {"caption": _captioned, "beams": _captioned, "ask": _asked, "match": _matched}
