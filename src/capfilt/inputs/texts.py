"""Text as the model was taught to read it, and raw text made safe to handle."""

import re
import unicodedata

_STOPS = re.compile(r"[.!\"()*#:;~]")
_GAPS = re.compile(r"\s{2,}")
_BREAKS = re.compile(r"[\t\n\v\f\r\x1c-\x1f\x85\u2028\u2029]+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ufeff]")
# Marks that reorder what a reader sees. Joiners (U+200C, U+200D) stay: Persian and emoji families need them.
_BIDI = re.compile(r"[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def clean_caption(text: str, max_words: int = 30) -> str:
    """BLIP's caption rule: lower case, `.!"()*#:;~` become spaces, runs of space shrink, the first max_words stay.

    >>> clean_caption('Two dogs; one (small) BALL.')
    'two dogs one small ball'
    """
    text = _GAPS.sub(" ", _STOPS.sub(" ", text.lower()))
    return _first(text.rstrip("\n").strip(" "), max_words)


def clean_question(text: str, max_words: int = 50) -> str:
    """BLIP's question rule: lower case, the same characters vanish without a space, the first max_words stay."""
    return _first(_STOPS.sub("", text.lower()).rstrip(" "), max_words)


def plain_text(raw: str | bytes, max_bytes: int = 8192) -> tuple[str, tuple[str, ...]]:
    """Any string or bytes → one line of NFC text of at most max_bytes UTF-8 bytes, and flags. Never raises.

    Line breaks become spaces; control and bidirectional characters go. Flags: `not_utf8`, `text_truncated`,
    `control_stripped`, `bidi_stripped`.
    """
    flags = []
    data = raw[: max_bytes + 4] if isinstance(raw, bytes) else raw[: max_bytes + 1].encode("utf-8", "replace")
    if len(raw) > max_bytes or len(data) > max_bytes:
        flags.append("text_truncated")
        data = _whole(data, max_bytes)
    text = data.decode("utf-8", "replace").removeprefix("\ufeff")
    lost = isinstance(raw, str) and any("\ud800" <= c <= "\udfff" for c in raw[:max_bytes])
    if "\ufffd" in text or lost:
        flags.append("not_utf8")
    text = _BREAKS.sub(" ", text)
    for pattern, flag in ((_CONTROL, "control_stripped"), (_BIDI, "bidi_stripped")):
        text, count = pattern.subn("", text)
        if count:
            flags.append(flag)
    text = unicodedata.normalize("NFC", text).strip()  # last: what stood between a letter and its accent is gone
    data = text.encode()
    if len(data) > max_bytes:  # a few characters grow under NFC
        text = _whole(data, max_bytes).decode().strip()
        flags += ["text_truncated"] * ("text_truncated" not in flags)
    return text, tuple(flags)


def _first(text: str, max_words: int) -> str:
    return " ".join(text.split(" ")[:max_words])


def _whole(data: bytes, max_bytes: int) -> bytes:
    """At most max_bytes of UTF-8, no character cut in two."""
    end = min(max_bytes, len(data))
    while end < len(data) and end > max(0, max_bytes - 4) and data[end] & 0xC0 == 0x80:
        end -= 1
    return data[:end]
