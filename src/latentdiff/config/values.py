"""What a value means for an option's type, and what the type takes, in words."""

from __future__ import annotations

import re
import types
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

BOOL_WORDS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
NULL_WORDS = ("none", "null")
EXPONENT = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")  # a number for YAML 1.2 and for people, a text for YAML 1.1
NOUNS: dict[object, tuple[str, str]] = {  # one, several
    int: ("an integer", "integers"),
    float: ("a number", "numbers"),
    bool: ("true or false", "true or false"),
    str: ("text", "texts"),
}
BOUNDS = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}


def members(hint: object) -> list[object]:
    """The types of a union, else the one type."""
    if get_origin(hint) is Annotated:
        return members(get_args(hint)[0])
    if get_origin(hint) in (Union, types.UnionType):
        return [member for part in get_args(hint) for member in members(part)]
    return [hint]


def read(fields: Mapping[str, FieldInfo], values: Mapping[str, object]) -> dict[str, object]:
    """The values as pydantic is to check them: what `meant` refuses becomes what no option takes."""

    def one(name: str, value: object) -> object:
        try:
            return meant(value, fields[name].annotation) if name in fields else value
        except ValueError:
            return object()

    return {name: one(name, value) for name, value in values.items()}


def meant(value: object, hint: object) -> object:
    """What a value stands for, where pydantic would not take it or would take it otherwise.

    Args:
        value: As YAML, a flag or Python gives it.
        hint: The option's type.

    Raises:
        ValueError: For what pydantic would take though it is not of the type, such as true for 1.
    """
    kinds = members(hint)
    if Any in kinds:
        return _with_numbers(value)
    if value is None or (value in NULL_WORDS and type(None) in kinds):
        return None
    if bool in kinds or isinstance(value, bool):
        return _truth(value, kinds)
    if isinstance(value, str) and int in kinds:
        return _integer(value)
    if isinstance(value, (list, tuple)):
        items = [get_args(kind)[0] for kind in kinds if get_origin(kind) in (list, tuple)]  # all of one type
        value = [meant(item, items[0]) for item in value] if items else value
    if isinstance(value, dict):
        items = [get_args(kind)[1] for kind in kinds if get_origin(kind) is dict]
        value = {name: meant(item, items[0]) for name, item in value.items()} if items else value
    return value


def _truth(value: object, kinds: list[object]) -> object:
    """True or false for a word; "no" where that is a choice, since YAML reads an unquoted no as false."""
    if isinstance(value, bool):
        if bool in kinds:
            return value
        if not value and any("no" in get_args(kind) for kind in kinds):
            return "no"
        raise ValueError(value)
    if isinstance(value, str) and value.lower() in BOOL_WORDS:
        return BOOL_WORDS[value.lower()]
    if set(kinds) <= {bool, type(None)}:  # pydantic takes 1 for true
        raise ValueError(value)
    return value


def _integer(text: str) -> int | str:
    """An integer for its text, also for 1e4; by way of float, which rounds beyond 2**53, only where it has to be."""
    if text.strip().lstrip("+-").isdecimal():
        return int(text)
    try:
        number = float(text)
    except ValueError:
        return text
    return int(number) if number.is_integer() else text


def _with_numbers(value: object) -> object:
    """A value of any type, in which texts such as 1e-4 are numbers, at any depth."""
    if isinstance(value, dict):
        return {name: _with_numbers(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_with_numbers(item) for item in value]
    return float(value) if isinstance(value, str) and EXPONENT.fullmatch(value) else value


def noun(hint: object, plural: bool = False) -> str:
    """A type in words."""
    if len(kinds := members(hint)) > 1:
        return _nouns(kinds)
    origin, args = get_origin(hint), get_args(hint)
    if hint in NOUNS:
        return NOUNS[hint][plural]
    if origin is Literal:
        return " or ".join(map(repr, args))
    if origin in (list, tuple):
        count = f"{len(args)} " if origin is tuple and ... not in args else ""
        return f"{'lists' if plural else 'a list'} of {count}{noun(args[0], plural=True)}"
    if isinstance(hint, type(BaseModel)):
        return f"{'mappings' if plural else 'a mapping'} of {', '.join(hint.model_fields)}"
    return f"a mapping of names to {noun(args[1], plural=True)}" if args and args[1] in NOUNS else "a mapping"


def _nouns(kinds: list[object]) -> str:
    parts = [kind for kind in kinds if isinstance(kind, type(BaseModel))]
    if len(parts) < 2:
        return " or ".join(map(noun, kinds))
    return f"{' or '.join(map(type_of, parts))}, or a mapping with that as its type"


def type_of(part: type[BaseModel]) -> str:
    """The name by which a part is chosen among several, quoted."""
    return repr(part.model_fields["type"].default)


def bounds(field: FieldInfo) -> str:
    """Such as "above 0 and below 1" or "from 0 to 1"; empty without bounds."""
    limits = {name: getattr(bound, name) for bound in field.metadata for name in BOUNDS if hasattr(bound, name)}
    if {"ge", "le"} <= limits.keys():
        return f"from {limits['ge']:g} to {limits['le']:g}"
    return " and ".join(f"{BOUNDS[name]} {limit:g}" for name, limit in limits.items())


def allowed(field: FieldInfo, *, number: bool = False) -> str:
    """What values an option takes, in words.

    Args:
        field: The option.
        number: Whether it is clear that it has to be a number, so that the bounds alone are to be said.
    """
    kinds, limits = members(field.annotation), bounds(field)
    words = "" if number else _nouns([kind for kind in kinds if kind is not type(None)])
    words = " ".join(filter(None, [words, "of" if words and limits.startswith("at") else "", limits]))
    words += ("," if limits or "," in words else "") + " or null" if type(None) in kinds else ""
    note = trait(field, "note")
    return f"{words}; {note}" if note else words


def trait(field: FieldInfo, name: Literal["resume", "of_pipeline", "note"]) -> object:
    """What `option` was told of a field beside its value; None if nothing."""
    extra = field.json_schema_extra
    return extra.get(name) if isinstance(extra, dict) else None
