"""Frozen dataclass ⇄ JSON, and `--set a.b=c`. Strict both ways: an unknown name is an error that lists those known."""

import dataclasses
import difflib
import hashlib
import json
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeVar, get_args, get_origin

from capfilt.errors import ConfigError

T = TypeVar("T")


def to_dict(config: Any) -> dict[str, Any]:
    """A dataclass as plain JSON values (tuples become lists)."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def from_dict(cls: type[T], values: Mapping[str, Any], where: str = "") -> T:
    """Builds `cls` from JSON values. Missing names take their defaults; unknown ones raise ConfigError."""
    hints = typing.get_type_hints(cls)
    fields = {f.name for f in dataclasses.fields(cls)}  # type: ignore[arg-type]  # T is a dataclass type
    for name in values:
        if name not in fields:
            raise ConfigError(_unknown(where + name, fields))
    try:
        return cls(**{name: _cast(hints[name], value, where + name) for name, value in values.items()})
    except TypeError as error:  # a required field is missing
        raise ConfigError(f"{where or cls.__name__}: {error}") from None


def with_sets(config: T, sets: Iterable[str]) -> T:
    """A copy of `config` with `a.b=c` applied; c is read as JSON where it is JSON, else as text."""
    for item in sets:
        path, equals, text = item.partition("=")
        if not equals or not path:
            raise ConfigError(f"--set {item!r}: write it as name=value, for example --set steps=500")
        try:
            value = json.loads(text)
        except json.JSONDecodeError:
            value = text
        config = _replace(config, path.strip().split("."), value, path.strip())
    return config


def fingerprint(config: Any) -> str:
    """Twelve hex digits that change whenever a setting changes."""
    values = to_dict(config) if dataclasses.is_dataclass(config) else config
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]


def _replace(config: Any, path: list[str], value: Any, full: str) -> Any:
    name, rest = path[0], path[1:]
    if not dataclasses.is_dataclass(config):
        raise ConfigError(f"--set {full}: the setting before .{name} has no parts")
    fields = {f.name for f in dataclasses.fields(config)}
    if name not in fields:
        raise ConfigError(_unknown(full, fields))
    if rest:
        new = _replace(getattr(config, name), rest, value, full)
    else:
        new = _cast(typing.get_type_hints(type(config))[name], value, full)
    return dataclasses.replace(config, **{name: new})  # type: ignore[type-var]


def _cast(hint: Any, value: Any, where: str) -> Any:
    origin = get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in get_args(hint):
            return None
        inner = [a for a in get_args(hint) if a is not type(None)]
        for option in inner:
            try:
                return _cast(option, value, where)
            except ConfigError:
                continue
        raise ConfigError(f"{where}: {value!r} is none of {' | '.join(_name(a) for a in inner)}")
    if origin is Literal:
        if value not in get_args(hint):
            raise ConfigError(f"{where}: {value!r} is not one of {', '.join(map(repr, get_args(hint)))}")
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{where}: expected a list, got {value!r}")
        item = get_args(hint)[0]
        return tuple(_cast(item, v, where) for v in value)
    if origin is dict:
        return dict(value)
    if dataclasses.is_dataclass(hint):
        if isinstance(value, hint):  # type: ignore[arg-type]
            return value
        return from_dict(hint, value, where + ".")  # type: ignore[arg-type]
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is Any or (isinstance(value, hint) and not (isinstance(value, bool) and hint is not bool)):
        return value
    raise ConfigError(f"{where}: expected {_name(hint)}, got {value!r}")


def _name(hint: Any) -> str:
    return getattr(hint, "__name__", str(hint))


def _unknown(name: str, known: Iterable[str]) -> str:
    known = sorted(known)
    close = difflib.get_close_matches(name.rpartition(".")[2], known, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return f"unknown setting {name!r}.{hint} Known: {', '.join(known)}"
