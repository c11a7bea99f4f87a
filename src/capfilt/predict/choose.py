"""From what a caller says (`beams=3`, `top_p=.9`) to a whole `Decoding`; contradictions are errors."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from capfilt.config import from_dict, to_dict
from capfilt.errors import ConfigError
from capfilt.predict.decode import BEAM, NUCLEUS, Decoding

DRAWN = ("top_p", "top_k", "temperature")
SEARCHED = ("beams", "length_rule", "groups", "diversity", "required")


def choose(settings: Mapping[str, Any], n: int | None = None, usual: Decoding = BEAM) -> Decoding:
    """`usual` changed by `settings`, fields of `Decoding`; the method follows from them where it is not named.

    top_p, top_k or temperature draw, beams=1 takes the likeliest word, all else leaves `usual`'s method. n: texts
    wanted an image, which beam search makes room for unless `beams` says otherwise.

    Raises ConfigError for an unknown field, and for fields of two methods at once.
    """
    drawn = [name for name in DRAWN if name in settings]
    searched = [name for name in SEARCHED if name in settings]
    method = settings.get("method")
    if method is None:
        method = "nucleus" if drawn else "greedy" if settings.get("beams") == 1 and not n else usual.method
    wrong = drawn if method != "nucleus" else searched
    if wrong and not (method == "greedy" and wrong == ["beams"]):
        other = "beam search or greedy" if method == "nucleus" else "nucleus sampling (method='nucleus')"
        raise ConfigError(f"decoding: {', '.join(wrong)} belong to {other}, but method={method!r} was chosen")
    start = dataclasses.replace(usual, method=method)
    if method == "nucleus" and usual.method != "nucleus":
        start = dataclasses.replace(start, repetition_penalty=NUCLEUS.repetition_penalty)
    if method == "beam" and n and "beams" not in settings:
        start = dataclasses.replace(start, beams=max(n, start.beams))
    given = {k: list(v) if isinstance(v, tuple) else v for k, v in settings.items()}
    return from_dict(Decoding, {**to_dict(start), **given})
