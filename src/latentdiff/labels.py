"""Class names in a component's configuration, and the class that a user's name or number stands for."""

from __future__ import annotations

import operator
import re
import unicodedata
from collections.abc import Iterable, Sequence
from decimal import Decimal

from latentdiff.errors import ConfigError, InputError
from latentdiff.registry import nearest

# Numbers as programs write them, in the digits of any script: with a sign, a point or an exponent.
NUMBER = re.compile(r"[-+]?\d+(\.\d*)?([eE][-+]?\d{1,3})?")
INTEGER = re.compile(r"[-+]?\d{1,18}(\.0*)?")


def is_number(name: str) -> bool:
    """Whether a name is a number, such as "0" or "007"."""
    return name.isascii() and name.isdecimal()


def plain_name(name: str) -> str:
    """A name without blanks around it, and with accents in one form: macOS has another in the names of folders."""
    return unicodedata.normalize("NFC", name).strip()


def integer_in(text: str) -> int | None:
    """The integer that a text is, such as "7", "-1" or, as pandas writes columns with gaps, "7.0"; None for others."""
    return int(text.partition(".")[0]) if INTEGER.fullmatch(text) else None


def value_of(name: str) -> Decimal | None:
    """The number that a name is in any notation, such as "07", "-1", "2.0" or "1e3"; None for a word."""
    return Decimal(name) if NUMBER.fullmatch(name) else None


def sorted_names(names: Iterable[str]) -> list[str]:
    """The different names in order, by value if all are numbers: "2" comes before "10", so "2" is class 2 of 12."""
    values = {name: value_of(name) for name in names}
    if None in values.values():
        return sorted(values)
    return sorted(values, key=lambda name: (values[name], name))


def check_class_names(class_names: Sequence[str] | None, count: int) -> None:
    """Check the class names of a configuration.

    Raises:
        ConfigError: Unless `class_names` is None or a list of `count` names that aren't empty.
    """
    if class_names is None:
        return
    if isinstance(class_names, str) or not isinstance(class_names, Sequence):
        raise ConfigError(f"class_names is {class_names!r}; it must be a list of strings, or null")
    if len(class_names) != count:
        raise ConfigError(f"class_names has {len(class_names)} names for {count} classes; give one each, or null")
    for number, name in enumerate(class_names):
        if not isinstance(name, str) or not name.strip():
            raise ConfigError(f"class_names has {name!r} as the name of class {number}; it must be a word")


def class_number(label: object, num_classes: int, class_names: Sequence[str] | None = None) -> int:
    """The number of a class that is given by its name or its number.

    Args:
        label: One of `class_names`, or an integer of Python, numpy or torch from 0 to `num_classes - 1`.
        num_classes: Number of classes.
        class_names: The name of each class; None if they have no names.

    Raises:
        InputError: If there is no such class, or several classes have this name.
    """
    allowed = f"{'a number' if class_names is None else 'a name or a number'} from 0 to {num_classes - 1}"
    if isinstance(label, str):
        if class_names is None:
            raise InputError(f"class {label!r} is given, but this model has no class names; give {allowed}")
        numbers = [number for number, name in enumerate(class_names) if name == label] or [
            number for number, name in enumerate(class_names) if plain_name(name) == plain_name(label)
        ]
        if not numbers:
            raise InputError(f"unknown class {label!r}; {nearest(label, class_names)}")
        if len(numbers) > 1:
            raise InputError(f"class {label!r} is the name of classes {' and '.join(map(str, numbers))}; give a number")
        return numbers[0]
    try:
        number = operator.index(label)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise InputError(f"class {label!r} is a {type(label).__name__}; give {allowed}") from None
    if isinstance(label, bool) or not 0 <= number < num_classes:
        raise InputError(f"class {label!r} is given; allowed: {allowed}")
    return number
