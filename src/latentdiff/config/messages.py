"""pydantic's errors as one line each, with the place of the option."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from latentdiff.config.values import allowed, noun, type_of
from latentdiff.errors import ConfigError
from latentdiff.registry import nearest

BOUND_ERRORS = ("greater_than", "greater_than_equal", "less_than", "less_than_equal")
Known = Sequence[tuple[str, type[BaseModel]]]
"""The dotted names of all options of a recipe, with the parts that have them."""


class WrongError(ValueError):
    """What is wrong with an option of a part.

    Args:
        name: Its dotted name in that part, empty for the part itself.
        text: What is said after the name.
        unknown_to: The part that has no such option, if that is what is wrong.
    """

    def __init__(self, name: str, text: str = "", unknown_to: type[BaseModel] | None = None) -> None:
        super().__init__(name, text)
        self.name, self.text, self.unknown_to = name, text, unknown_to

    def within(self, part: str) -> WrongError:
        """The same, named as the part's owner names it."""
        return WrongError(".".join(filter(None, (part, self.name))), self.text, self.unknown_to)

    def line(self, known: Known) -> str:
        """The message, for a recipe with these options."""
        if self.unknown_to is None:
            return f"{self.name}{self.text}"
        if owners := [type_of(part) for name, part in known if name == self.name]:
            own, takes = type_of(self.unknown_to), [name for name in self.unknown_to.model_fields if name != "type"]
            takes_words = f"which takes {', '.join(takes)}" if takes else "which takes none"
            return f"{self.name} is given, but type is {own}, {takes_words}; it is an option of {' and '.join(owners)}"
        return f"unknown option {self.name!r}; {_nearest(self.name, self.unknown_to, known)}"


def first_wrong(part: type[BaseModel], values: object, found: ValidationError) -> WrongError:
    """The first error of a part; unknown options come before others, since a misspelled name is missing elsewhere.

    Args:
        part: The class that was to be made.
        values: What it was to be made of.
        found: What pydantic says of that.
    """
    errors = [_wrong(part, values, error) for error in found.errors(include_url=False)]
    return next((error for error in errors if error.unknown_to), errors[0])


def _wrong(part: type[BaseModel], values: object, error: ErrorDetails) -> WrongError:
    place, kind, cause = error["loc"], error["type"], error.get("ctx", {}).get("error")
    name = str(place[0]) if place else ""
    if isinstance(cause, WrongError):
        return cause.within(name)
    if isinstance(cause, ConfigError):  # of a `check`, whose message begins with the option
        return WrongError(str(cause)).within(name)
    if not name:
        return WrongError("", f" is {values!r}; it must be {noun(part)}")
    field = part.model_fields.get(name)
    if field is None:
        return WrongError(name, unknown_to=part)
    if kind == "missing" and len(place) == 1:
        return WrongError(name, f" is missing; it must be {allowed(field)}")
    value, number = (values[name] if isinstance(values, Mapping) else error["input"]), kind in BOUND_ERRORS
    return WrongError(name, f" is {value if number else repr(value)}; it must be {allowed(field, number=number)}")


def _nearest(name: str, part: type[BaseModel], known: Known) -> str:
    """The tail of a message about an unknown option: the options that it may have meant.

    Those are the ones of its name in other parts, else those like it in its own, else those whose name it ends with, as
    names did when all options stood in one row (`adam_beta1` is `optimizer.beta1`), else whatever is like it.
    """
    prefix, dot, own = name.rpartition(".")
    names = list(dict.fromkeys(place for option, _ in known for place in [*_parts_of(option), option]))

    def beside(cutoff: float) -> list[str]:
        return [prefix + dot + near for near in difflib.get_close_matches(own, part.model_fields, 3, cutoff)]

    moved = [option for option in names if f".{option}".replace(".", "_").endswith(f"_{own}")]
    ends = [option for option in names if own.endswith(f"_{option.rpartition('.')[2]}")]
    close = moved or beside(0.75) or difflib.get_close_matches(own, ends, 1, 0.3) or beside(0.5)
    return f"did you mean {' or '.join(map(repr, close[:3]))}?" if close else nearest(name, names)


def _parts_of(option: str) -> list[str]:
    """The parts that an option lies in: a, a.b of a.b.c."""
    names = option.split(".")
    return [".".join(names[:length]) for length in range(1, len(names))]
