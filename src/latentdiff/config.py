"""Recipes: one frozen dataclass gives the YAML schema, the command-line flags and the Python interface."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, NoReturn, TypeVar

from latentdiff.errors import ConfigError
from latentdiff.registry import nearest

T = TypeVar("T")

BOOL_WORDS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
CONVERSION_ERRORS = (TypeError, ValueError, KeyError, AttributeError, OverflowError)


def _describe(hint: Any) -> str:
    if typing.get_origin(hint) is typing.Literal:
        return " or ".join(repr(choice) for choice in typing.get_args(hint))
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return " or ".join(_describe(part) for part in typing.get_args(hint))
    if typing.get_args(hint):
        return "a mapping" if typing.get_origin(hint) is dict else str(hint).replace("typing.", "")
    return "null" if hint is type(None) else getattr(hint, "__name__", str(hint))


def _convert(value: Any, hint: Any) -> Any:
    """`value` as the type `hint`, or one of CONVERSION_ERRORS. Strings are parsed: flags and YAML's 1e-4 are text."""
    origin, choices = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _convert_union(value, choices)
    if origin in (list, tuple):
        return _convert_sequence(value, origin, choices)
    if hint in (int, float):
        return _convert_number(value, hint)
    if hint is bool and isinstance(value, str):
        return BOOL_WORDS[value.lower()]
    if origin is typing.Literal:
        value = "no" if value is False and "no" in choices else value  # YAML reads an unquoted no as false
        fits = value in choices
    elif hint is type(None):
        value = None if value in ("none", "null") else value
        fits = value is None
    else:
        fits = hint is Any or isinstance(value, origin or hint)
    return value if fits else _fail()


def _convert_union(value: Any, choices: tuple[Any, ...]) -> Any:
    for choice in sorted(choices, key=lambda choice: choice is not type(None)):  # "null" is None before it is a str
        try:
            return _convert(value, choice)
        except CONVERSION_ERRORS:
            continue
    return _fail()


def _convert_number(value: Any, kind: type[int] | type[float]) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return _fail()
    if kind is float or isinstance(value, int):
        return kind(value)
    if isinstance(value, str) and value.strip().lstrip("+-").isdecimal():
        return int(value)  # not by way of float, which rounds beyond 2**53
    number = float(value)
    return int(number) if number.is_integer() else _fail()


def _convert_sequence(value: Any, kind: type, hints: tuple[Any, ...]) -> Any:
    if not isinstance(value, (list, tuple)):
        return _fail()
    if kind is list or hints[1:] == (...,):
        hints = hints[:1] * len(value)
    return kind(_convert(item, hint) for item, hint in zip(value, hints, strict=True))


def _fail() -> NoReturn:
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
        except CONVERSION_ERRORS:
            raise ConfigError(f"{source}: {name} is {value!r}; it must be {_describe(hints[name])}") from None
    return cls(**converted)


def check(condition: bool, message: str) -> None:
    """Raise ConfigError(message) unless the condition holds: the form of every check in a recipe."""
    if not condition:
        raise ConfigError(message)
