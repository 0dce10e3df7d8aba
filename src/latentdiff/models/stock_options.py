"""Constructors that take what those of diffusers take, where it means what this package does."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import diffusers

from latentdiff.errors import ConfigError
from latentdiff.registry import nearest


def with_stock_options(init: Callable[..., None]) -> Callable[..., None]:
    """Decorate the constructor of a class so that it takes the options of its counterpart in diffusers.

    Options that the class has at one value, as its attributes `allowed_values` and `solver_values` say, are taken with
    this value, and other options of the class of diffusers that `counterpart` names with their default. Anything else
    is a ConfigError.
    """
    parameters = list(inspect.signature(init).parameters.values())[1:]
    own = [parameter.name for parameter in parameters]
    by_position = [p.name for p in parameters if p.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]

    @functools.wraps(init)
    def checked(self: object, *values: object, **options: object) -> None:
        if len(values) > len(by_position):
            name, most = type(self).__name__, len(by_position)
            raise ConfigError(f"{name} takes {most} options by position, not {len(values)}; give the others by name")
        given = dict(zip(by_position, values, strict=False))
        for name in given.keys() & options.keys():
            raise ConfigError(f"{name} is given by position and by name; give it once")
        for name, value in options.items():
            if name not in own and not name.startswith("_"):
                check_stock_option(type(self), name, value, own)
        init(self, **given, **{name: v for name, v in options.items() if name in own or name.startswith("_")})

    return checked


def check_stock_option(made: Any, name: str, value: object, own: list[str]) -> None:
    """Raise ConfigError unless an option that a class doesn't have is given the one value that it has here.

    Args:
        made: The class that is made.
        name: The option.
        value: The value that was given.
        own: The names of the options that the class has.
    """
    fixed = {**made.allowed_values, **getattr(made, "solver_values", {})}
    defaults = _defaults(made.counterpart)
    if name not in fixed and name not in defaults:
        raise ConfigError(f"{made.__name__} has no option {name!r}; {nearest(name, [*own, *fixed])}")
    allowed = fixed.get(name, defaults.get(name))
    if value != allowed:
        raise ConfigError(f"{name} is {value!r}; {made.__name__} offers {allowed!r} only")


def _defaults(counterpart: str) -> dict[str, object]:
    """The options of a class of diffusers with their defaults; none if there is no such class."""
    stock = getattr(diffusers, counterpart, None) if counterpart else None
    if stock is None:
        return {}
    return {name: p.default for name, p in inspect.signature(stock.__init__).parameters.items() if name != "self"}
