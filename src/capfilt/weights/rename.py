"""The rename engine: one literal table a layout, read in both directions, and nothing passes unnamed.

A table maps a foreign key pattern to the own tensor it fills, to a part of one, or to None (dropped on purpose).
`*` stands for one dotted segment, `**` for any number of them; the n-th of the foreign pattern is the n-th of the own
one. The first pattern that fits a foreign key decides.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import torch
from torch import Tensor

from capfilt.blocks.vit import resize_positions
from capfilt.errors import WeightsError


@dataclass(frozen=True)
class To:
    """Where a foreign tensor goes.

    key:    pattern of the own tensor.
    part:   which of `of` equal blocks of its rows the foreign tensor fills (q, k, v → one fused `qkv`).
    turned: the foreign tensor is the transpose.
    flat:   the foreign tensor has a leading axis of length 1 that ours has not.
    grid:   a position table [CLS] + square grid, which may be resized on request.
    """

    key: str
    part: int = 0
    of: int = 1
    turned: bool = False
    flat: bool = False
    grid: bool = False


Rules = Mapping[str, To | None]


@dataclass(frozen=True)
class Layout:
    """The names of one foreign model. `fresh`: own tensors that layout does not have, and what fills them."""

    name: str
    rules: Rules
    fresh: Mapping[str, float] = field(default_factory=dict)


def under(foreign: str, own: str, rules: Rules) -> dict[str, To | None]:
    """The same rules one level deeper: `foreign` before every foreign pattern, `own` before every own one."""
    return {
        foreign + pattern: None if to is None else To(**{**vars(to), "key": own + to.key})
        for pattern, to in rules.items()
    }


def to_own(
    foreign: Mapping[str, Tensor], layout: Layout, own: Mapping[str, Tensor], where: object, resize: bool = False
) -> dict[str, Tensor]:
    """Foreign tensors under our names, fused, in the shapes and dtypes of `own`.

    What is neither fused nor of another dtype is handed on as it is, so a file that is mapped is not copied.

    own:    the state of the model to be filled; its values are not read, it may be on the meta device.
    where:  what is being loaded, for the message.
    resize: let position tables of another grid through, resized.

    Raises WeightsError naming every foreign key without a rule, every own key left unfilled, every other shape, and
    tied names whose values differ.
    """
    parts: dict[str, dict[int, Tensor]] = {}
    wrong = []
    for name, tensor in foreign.items():
        found = _find(name, layout.rules)
        if found is None:
            wrong.append(f"unknown {name}")
        elif found[1] is not None:
            wrong += _place(name, tensor, found[1], own, parts, resize)
    filled = {}
    for key, tensor in own.items():
        blocks, of = parts.get(key, {}), _blocks(key, layout.rules)
        if len(blocks) == of:
            filled[key] = torch.cat([blocks[i] for i in range(of)]) if of > 1 else blocks[0]
        elif not blocks and key in layout.fresh:
            filled[key] = torch.full(tensor.shape, layout.fresh[key], dtype=tensor.dtype)
        else:
            wrong.append(f"missing {key}" + (f" ({len(blocks)} of its {of} parts are there)" if blocks else ""))
    if wrong:
        raise WeightsError(f"{where}: {len(wrong)} keys do not fit the layout {layout.name}: {'; '.join(wrong)}")
    return filled


def to_foreign(own: Mapping[str, Tensor], layout: Layout) -> dict[str, Tensor]:
    """Our tensors (or gradients) under the layout's names, tied ones under each name. Dropped keys are not made up.

    Raises WeightsError for an own key that no rule names.
    """
    out, wrong = {}, []
    for key, tensor in own.items():
        named = False
        for name, to in _sources(key, layout.rules):
            part = tensor.chunk(to.of)[to.part] if to.of > 1 else tensor
            part = part.T if to.turned else part
            out[name] = part[None] if to.flat else part
            named = True
        if not named and key not in layout.fresh:
            wrong.append(key)
    if wrong:
        raise WeightsError(f"the layout {layout.name} has no name for {len(wrong)} of our keys: {'; '.join(wrong)}")
    return out


def own_shapes(foreign: Mapping[str, Tensor], layout: Layout) -> dict[str, tuple[int, ...]]:
    """Own key → shape of a foreign tensor that goes there: what the sizes of an unknown model are read from."""
    found = ((_find(name, layout.rules), tensor) for name, tensor in foreign.items())
    return {at[1].key: tuple(tensor.shape) for at, tensor in found if at is not None and at[1] is not None}


def fitting(name: str, patterns: Mapping[str, str | None]) -> str | None:
    """What the first pattern that fits a name says, `*` filled in; None where that says None.

    Raises KeyError where none fits.
    """
    for pattern, other in patterns.items():
        match = _compiled(pattern).fullmatch(name)
        if match:
            return None if other is None else _fill(other, match.groups())
    raise KeyError(name)


def _place(name: str, tensor: Tensor, to: To, own: Mapping[str, Tensor], parts: dict, resize: bool) -> list[str]:
    """Puts one foreign tensor where it belongs; returns what is wrong with it."""
    if to.key not in own:
        return [f"{name} would fill {to.key}, which the model has not"]
    want = own[to.key]
    shape = (want.shape[0] // to.of, *want.shape[1:]) if to.of > 1 else tuple(want.shape)
    if to.flat and tensor.shape[:1] == (1,):
        tensor = tensor[0]
    if to.turned and tensor.ndim == 2:
        tensor = tensor.T
    if resize and to.grid and tensor.ndim == 3 and math.isqrt(tensor.shape[1] - 1) ** 2 == tensor.shape[1] - 1:
        tensor = resize_positions(tensor.float(), want.shape[1])
    if tuple(tensor.shape) != shape:
        return [f"{name} is {tuple(tensor.shape)}, {to.key} takes {shape}"]
    if tensor.ndim == 1 and tensor.is_floating_point() and not tensor.is_meta and not tensor.isfinite().all():
        return [f"{name} holds numbers that are none (NaN or infinite)"]  # only vectors: tables would all be read
    tensor = tensor.to(want.dtype)
    blocks = parts.setdefault(to.key, {})
    tied = blocks.setdefault(to.part, tensor)
    if tied is not tensor and not tensor.is_meta and not torch.equal(tied, tensor):
        return [f"{name} should equal the tensor it is tied to ({to.key})"]
    return []


def _find(name: str, rules: Rules) -> tuple[str, To | None] | None:
    """(pattern, target with its `*` filled in) of the one rule for a foreign key."""
    for pattern, to in rules.items():
        match = _compiled(pattern).fullmatch(name)
        if match:
            return pattern, None if to is None else To(**{**vars(to), "key": _fill(to.key, match.groups())})
    return None


def _sources(key: str, rules: Rules) -> list[tuple[str, To]]:
    """Every foreign name that fills an own key, with the part it fills."""
    found = []
    for pattern, to in rules.items():
        match = _compiled(to.key).fullmatch(key) if to is not None else None
        if match and to is not None:
            found.append((_fill(pattern, match.groups()), to))
    return found


def _blocks(key: str, rules: Rules) -> int:
    return max((to.of for _, to in _sources(key, rules)), default=1)


def _fill(pattern: str, segments: tuple[str, ...]) -> str:
    rest = iter(segments)
    return re.sub(r"\*+", lambda _: next(rest), pattern)


@lru_cache(maxsize=4096)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(re.escape(pattern).replace(r"\*\*", "(.+)").replace(r"\*", "([^.]+)"))
