"""Frozen dataclasses from plain values (what YAML and JSON hold), strictly, and back."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

C = TypeVar("C")


def from_dict(cls: type[C], values: Any, where: str = "") -> C:
    """Fill a dataclass from plain values, strictly. ValueError names what is wrong, and what is known instead."""
    prefix = f"{where}: " if where else ""
    if not isinstance(values, Mapping):
        raise ValueError(f"{prefix}{cls.__name__} takes a mapping, not {values!r}")
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    unknown = sorted(str(k) for k in values if k not in fields)
    if unknown:
        raise ValueError(f"{prefix}unknown setting {', '.join(unknown)}; known are {', '.join(fields)}")
    missing = [f.name for f in fields.values() if f.default is dataclasses.MISSING and f.name not in values]
    if missing:
        raise ValueError(f"{prefix}missing setting {', '.join(missing)}")
    filled = {name: _convert(hints[name], value, _join(where, name)) for name, value in values.items()}
    try:
        return cls(**filled)
    except ValueError as error:
        raise ValueError(f"{prefix}{error}") from error


def _convert(kind: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(kind):
        return value if isinstance(value, typing.cast(type, kind)) else from_dict(typing.cast(type, kind), value, where)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        if value not in arguments:
            raise ValueError(f"{where} is {value!r}, must be one of {', '.join(map(repr, arguments))}")
        return value
    if origin in (typing.Union, types.UnionType):
        return None if value is None else _convert(next(a for a in arguments if a is not type(None)), value, where)
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise ValueError(f"{where} must be a mapping, not {value!r}")
        return {str(k): _convert(arguments[1], v, _join(where, str(k))) for k, v in value.items()}
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ValueError(f"{where} must be a list, not {value!r}")
        kinds = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else list(arguments)
        if len(kinds) != len(value):
            raise ValueError(f"{where} must have {len(kinds)} entries, not {len(value)}")
        return tuple(_convert(k, v, f"{where}[{i}]") for i, (k, v) in enumerate(zip(kinds, value, strict=True)))
    return _scalar(kind, value, where)


def _scalar(kind: type, value: Any, where: str) -> Any:
    if kind is bool or isinstance(value, bool):
        if not (kind is bool and isinstance(value, bool)):
            raise ValueError(f"{where} must be {_NAMES[kind]}, not {value!r}")
        return value
    if kind is str:
        if not isinstance(value, str):
            raise ValueError(f"{where} must be text, not {value!r}")
        return value
    try:
        number = kind(value)  # YAML reads 3e-4 as text
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where} must be {_NAMES[kind]}, not {value!r}") from error
    if kind is int and not isinstance(value, str) and number != value:
        raise ValueError(f"{where} must be a whole number, not {value!r}")
    if number != number or number in (float("inf"), float("-inf")):
        raise ValueError(f"{where} must be finite, not {value!r}")
    return number


_NAMES: dict[type, str] = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


def override(values: dict[str, Any], text: str) -> None:
    """Set one value, in place, as `name.of.setting=value` says; the value is read as YAML. ValueError if it cannot be."""
    import yaml

    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ValueError(f"--set {text}: write it as name.of.setting=value")
    *path, last = key.split(".")
    for name in path:
        values = values.setdefault(name, {})
        if not isinstance(values, dict):
            raise ValueError(f"--set {text}: {name} holds no settings")
    values[last] = yaml.safe_load(value)


def to_dict(value: Any) -> Any:
    """Dataclasses, mappings and tuples as dicts and lists: what YAML and JSON hold."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_dict(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {k: to_dict(v) for k, v in value.items()}
    return [to_dict(v) for v in value] if isinstance(value, tuple | list) else value


def _join(where: str, name: str) -> str:
    # A file's name comes first, with a colon; names of settings are joined by dots.
    return name if not where else f"{where}: {name}" if where.endswith((".yaml", ".yml", ".json")) else f"{where}.{name}"
