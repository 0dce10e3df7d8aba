"""Recipes: one frozen dataclass gives the YAML schema, the command-line flags and the Python interface."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from latentdiff.errors import ConfigError
from latentdiff.registry import nearest

T = TypeVar("T")


def _describe(hint: Any) -> str:
    if typing.get_origin(hint) is typing.Literal:
        return " or ".join(repr(choice) for choice in typing.get_args(hint))
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return " or ".join(_describe(part) for part in typing.get_args(hint))
    return "null" if hint is type(None) else getattr(hint, "__name__", str(hint))


def _convert(value: Any, hint: Any) -> Any:
    """`value` as the type `hint`, or TypeError. Strings are parsed, since flags and YAML's 1e-4 arrive as text."""
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        for part in typing.get_args(hint):
            try:
                return _convert(value, part)
            except (TypeError, ValueError):
                continue
        raise TypeError
    if origin is typing.Literal:
        if value in typing.get_args(hint):
            return value
        raise TypeError
    if hint is type(None):
        if value is None or value in ("none", "null"):
            return None
        raise TypeError
    if hint is bool:
        if isinstance(value, bool):
            return value
        return {"true": True, "false": False}[value] if value in ("true", "false") else _fail()
    if hint in (int, float):
        if isinstance(value, bool) or (hint is int and isinstance(value, float) and not value.is_integer()):
            raise TypeError
        return hint(value)
    if not isinstance(value, origin or hint):
        raise TypeError
    return value


def _fail() -> Any:
    raise TypeError


def from_mapping(cls: type[T], values: Mapping[str, Any], source: str = "recipe") -> T:
    """Make the dataclass `cls` of a mapping.

    Args:
        cls: A frozen dataclass; fields without a default are required.
        values: Field names to values, as YAML or flags give them.
        source: What the values come from, for messages.

    Raises:
        ConfigError: On an unknown or missing field, or a value of the wrong type.
    """
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for name in values:
        if name not in fields:
            raise ConfigError(f"{source}: unknown option {name!r}; {nearest(name, fields)}")
    missing = [
        name
        for name, f in fields.items()
        if name not in values and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ConfigError(f"{source}: {missing[0]!r} is missing; it is a {_describe(hints[missing[0]])}, add it")
    converted = {}
    for name, value in values.items():
        try:
            converted[name] = _convert(value, hints[name])
        except (TypeError, ValueError):
            raise ConfigError(f"{source}: {name} is {value!r}; it must be {_describe(hints[name])}") from None
    return cls(**converted)


def check(condition: bool, message: str) -> None:
    """Raise ConfigError(message) unless the condition holds: the form of every check in a recipe."""
    if not condition:
        raise ConfigError(message)
