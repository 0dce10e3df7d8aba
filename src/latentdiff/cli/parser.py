"""Parsing: argparse whose errors are those of the package, and the types of option values."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from latentdiff.errors import InputError
from latentdiff.registry import SCHEDULERS, nearest


class Parser(argparse.ArgumentParser):
    """An argument parser that raises InputError, names the nearest choice, and takes no abbreviated options."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        """Raise the message with where to read more."""
        raise InputError(f"{message.removeprefix('argument ')} (see {self.prog} --help)")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            raise argparse.ArgumentError(action, f"unknown {value!r}; {nearest(value, action.choices)}")


def parse(parser: Parser, argv: Sequence[str]) -> argparse.Namespace:
    """Parse the arguments; an unknown option is an InputError that names its neighbours."""
    args, unknown = parser.parse_known_args(argv)
    if unknown:
        command: Parser = args.parser
        first = unknown[0].split("=")[0]
        hint = (
            nearest(first, command._option_string_actions)
            if first.startswith("-")
            else "put values together before the options, one with blanks in quotes"
        )
        raise InputError(f"unknown argument {unknown[0]!r}; {hint} (see {command.prog} --help)")
    return args


def whole_number(low: int) -> Callable[[str], int]:
    """The type of integers of at least `low`."""

    def convert(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = low - 1
        if number < low:
            raise argparse.ArgumentTypeError(f"{text!r} is given; it must be an integer of at least {low}")
        return number

    return convert


def number(low: float = -math.inf, high: float = math.inf) -> Callable[[str], float]:
    """The type of finite numbers from `low` to `high`."""

    def convert(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and low <= value <= high):
            bounds = f" from {low:g} to {high:g}" if math.isfinite(low) else ""
            raise argparse.ArgumentTypeError(f"{text!r} is given; it must be a number{bounds}")
        return value

    return convert


def registered_scheduler(text: str) -> str:
    """The type of names in the scheduler registry."""
    if text not in SCHEDULERS:
        raise argparse.ArgumentTypeError(f"unknown scheduler {text!r}; {nearest(text, SCHEDULERS.names())}")
    return text
