"""Rows dropped by what scorers said of them: `watermark>0.8`, `aesthetic<4` (`Policy.drop`, `clean.scorers`)."""

import json
import re
from collections.abc import Sequence
from typing import NoReturn

import pyarrow as pa

from capfilt.errors import ConfigError


def limit_of(text: str) -> tuple[str, str, float]:
    """`watermark>0.8` → its parts. Raises ConfigError for anything else."""
    found = re.fullmatch(r"\s*([^\W\d]\w*)\s*([<>])\s*(\S+)\s*", text)
    try:
        return (found[1], found[2], float(found[3])) if found else _no_limit(text)
    except ValueError:
        return _no_limit(text)


def _no_limit(text: str) -> NoReturn:
    raise ConfigError(f"policy.drop={text!r}: write scorer>number or scorer<number, as in watermark>0.8") from None


def beyond(drop: Sequence[str], extra: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Of each row the scorer by which it is dropped, and in which words; null where by none.

    extra: of SCORES. Raises ConfigError for a scorer that the run did not have.
    """
    kinds: list[str | None] = [None] * len(extra)
    told: list[str | None] = [None] * len(extra)
    limits = [limit_of(text) for text in drop]
    for i, said in enumerate(extra.to_pylist() if limits else ()):
        numbers = json.loads(said) if said else {}
        for name, sign, limit in limits:
            if said and name not in numbers:
                raise ConfigError(f"policy.drop={name}{sign}{limit:g}: scorers of this run are {', '.join(numbers)}")
            if said and (numbers[name] > limit if sign == ">" else numbers[name] < limit):
                kinds[i], told[i] = name, f"{numbers[name]:g} {sign} {limit:g}"
                break
    return pa.array(kinds, pa.string()), pa.array(told, pa.string())
