"""The options of recipes as flags."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Annotated, Literal, TypedDict, get_args, get_origin

from cyclopts import Group, Parameter

from latentdiff.config import Option, Part, options_of
from latentdiff.config.values import members, type_of


def recipe_flags(recipe: type[Part], leave_out: Collection[str] = ()) -> type:
    """A TypedDict of a recipe's dotted names, whose entries are flags; their texts are read and checked by the recipe.

    Args:
        recipe: The class, or a part's.
        leave_out: Names that get no flag.
    """
    options: dict[str, list[Option]] = {}
    for option in options_of(recipe):
        if option.name not in leave_out:
            options.setdefault(option.name, []).append(option)
    parts = dict.fromkeys(name.rpartition(".")[0] for name in options)
    groups = {part: Group.create_ordered(f"Recipe: {part}" if part else "Recipe") for part in parts}
    flags = {name: _flag(name, found, groups[name.rpartition(".")[0]]) for name, found in options.items()}
    return TypedDict(f"{recipe.__name__}Flags", flags, total=False)  # type: ignore[operator, no-any-return]


def _flag(name: str, options: list[Option], group: Group) -> object:
    """The type of an entry, of the options that have its name: one, or one of each part that may stand in a place."""
    first, several = options[0], len(options) > 1
    texts = [f"{option.description} ({type_of(option.part)})" for option in options] if several else [first.description]
    default = first.field.default
    plain = isinstance(default, (str, int, float)) and not several
    parameter = Parameter(
        name=f"--{name}",
        group=group,
        help=" ".join(texts),
        metavar="VALUE" if several else _metavar(first),
        show_default=json.dumps(default).strip('"') if plain else False,
    )
    return Annotated[str, parameter]


def _metavar(option: Option) -> str:
    kinds = [kind for kind in members(option.field.annotation) if kind is not type(None)]
    if len(kinds) > 1:
        return "VALUE|JSON"
    if get_origin(kinds[0]) is Literal:
        return "|".join(get_args(kinds[0]))
    return "true|false" if kinds[0] is bool else "VALUE" if kinds[0] in (int, float, str) else "JSON"
