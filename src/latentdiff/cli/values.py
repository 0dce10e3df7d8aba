"""Values of options: validators and converters, whose messages say what is allowed."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence

from cyclopts import Token

from latentdiff.registry import SCHEDULERS, nearest

MAX_SIZE = 2**26

Validator = Callable[[object, object], None]


def number(low: float = -math.inf, high: float = math.inf, kind: str = "an integer") -> Validator:
    """The validator of finite numbers from `low` to `high`, single or in a tuple; without an end, of a `kind`."""
    if math.isfinite(high):
        allowed = f"a number from {low:g} to {high:g}"
    else:
        allowed = f"{kind} of at least {low:g}" if math.isfinite(low) else "a number"

    def validate(type_: object, value: object) -> None:
        for item in value if isinstance(value, tuple) else (value,):
            if isinstance(item, (int, float)) and not (math.isfinite(item) and low <= item <= high):
                raise ValueError(f"it must be {allowed}")

    return validate


def registered_scheduler(type_: object, value: object) -> None:
    """The validator of names in the registry of schedulers; None is no name and passes."""
    if value is not None and value not in SCHEDULERS:
        raise ValueError(nearest(value, SCHEDULERS.names()))


def steps(type_: object, tokens: Sequence[Token]) -> int | str:
    """The converter of a number of steps, or of "tuned:N"."""
    text = tokens[0].value
    if re.fullmatch(r"tuned:[1-9][0-9]*", text):
        return text
    try:
        number = int(text)
    except ValueError:
        raise ValueError("it must be an integer, or like tuned:10") from None
    if number < 1:
        raise ValueError("it must be an integer of at least 1, or like tuned:10")
    return number


def size(type_: object, tokens: Sequence[Token]) -> tuple[int, int]:
    """The converter of "WIDTHxHEIGHT", or of one number for both, to (width, height)."""
    match = re.fullmatch(r"([0-9]{1,5})(?:x([0-9]{1,5}))?", tokens[0].value)
    width, height = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 0 < width * height <= MAX_SIZE:
        raise ValueError(f"it must be like 64 or 96x64, {MAX_SIZE} pixels at most")
    return width, height
