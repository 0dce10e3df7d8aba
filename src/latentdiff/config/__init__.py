"""Recipes: nested classes of options give the YAML's schema, the command line's flags and the Python interface.

A recipe is a `Part` whose options may be parts in turn. pydantic checks and converts the values; beside it stand how
texts are read (flags are texts, and so is `1e-4` in YAML 1.1) and how an error is said in one line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import EllipsisType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, cast

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic.functional_validators import ModelWrapValidatorHandler
from pydantic.json_schema import models_json_schema
from typing_extensions import dataclass_transform

from latentdiff.config.messages import first_wrong
from latentdiff.config.stack import BASE, BASE_SCHEMA, Layer, flat, merged, read_layers, replaced
from latentdiff.config.values import allowed, members, read, trait
from latentdiff.errors import ConfigError
from latentdiff.reading import parse_yaml
from latentdiff.types import JSON

if TYPE_CHECKING:
    from latentdiff.compat import ModelMetaclass
else:
    ModelMetaclass = type(BaseModel)

__all__ = [
    "Option",
    "Part",
    "Resume",
    "check",
    "flat",
    "from_mapping",
    "json_schema",
    "load_recipe",
    "named",
    "option",
    "options_of",
    "parts_of",
    "recipe_values",
    "stacked",
    "trait",
]

T = TypeVar("T")
P = TypeVar("P", bound="Part")

Resume = Literal["fixed", "free", "remedy"]
"""Whether an option may be another when a run goes on from a checkpoint: no, yes, or yes with a warning, as what may
help a run that diverges."""


def option(
    default: T | EllipsisType = ...,
    *,
    resume: Resume = "fixed",
    of_pipeline: bool = False,
    note: str | None = None,
    infinite: bool = False,
    gt: float | None = None,
    ge: float | None = None,
    lt: float | None = None,
    le: float | None = None,
) -> T:
    """An option of a part; without a default it has to be given.

    Args:
        default: What it is if nobody says.
        resume: See `Resume`; that of a part holds for all in it.
        of_pipeline: Whether a pretrained pipeline brings it along, beside which it goes unused.
        note: What a message about a wrong value adds.
        infinite: Whether a number may be infinite; none may be not a number.
        gt: The value must be above it.
        ge: The value must be at least it.
        lt: The value must be below it.
        le: The value must be at most it.
    """
    traits: dict[str, str | bool | None] = {"resume": resume, "of_pipeline": of_pipeline, "note": note}
    extra = {name: value for name, value in traits.items() if value not in ("fixed", False, None)}
    unbounded = True if infinite else None  # None leaves it to the configuration of `Part`
    return Field(default, gt=gt, ge=ge, lt=lt, le=le, allow_inf_nan=unbounded, json_schema_extra={**extra})  # type: ignore[return-value]


@dataclass_transform(kw_only_default=True)
class _RaisesConfigError(ModelMetaclass):
    """Makes a call of a part's class raise a ConfigError where pydantic raises an error of its own."""

    def __call__(cls, *args: object, **values: object) -> Any:
        try:
            return super().__call__(*args, **values)
        except ValidationError as error:
            raise ConfigError(_line(cast(type[Part], cls), values, error)) from None


class Part(BaseModel, metaclass=_RaisesConfigError):
    """Options that belong together: checked when they are made, and never changed.

    The text below an option is its description. Checks across options are `check(...)` in model validators of mode
    "after"; their messages begin with the option's name. `model_fields_set` are the options that were given.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    @model_validator(mode="wrap")
    @classmethod
    def _read_and_explain(cls, values: object, validate: ModelWrapValidatorHandler[Self]) -> Self:
        """Read texts for what they mean before pydantic checks the values, and say its errors in our way."""
        try:
            return validate(read(cls.model_fields, values) if isinstance(values, Mapping) else values)
        except ValidationError as error:
            raise first_wrong(cls, values, error) from None

    def given(self, name: str) -> bool:
        """Whether an option was given, be it the default's value; null and what is empty are as if it were left out."""
        return name in self.model_fields_set and getattr(self, name) not in (None, {}, [])

    def replace(self, **changes: object) -> Self:
        """A copy with other values, which are checked as any."""
        kept = {name: getattr(self, name) for name in self.model_fields_set}
        return type(self)(**{**kept, **changes})


def check(condition: bool, message: str) -> None:
    """Raise ConfigError(message) unless the condition holds: the form of every check in a recipe."""
    if not condition:
        raise ConfigError(message)


def from_mapping(cls: type[P], values: Mapping[str, object], source: str = "recipe") -> P:
    """Make the recipe or part `cls` of a mapping.

    Args:
        cls: What to make.
        values: Names of options to values, nested, as YAML gives them.
        source: What the values come from, for messages.

    Raises:
        ConfigError: If an option is unknown or missing or has a wrong value: its dotted name, the value and what is
            allowed.
    """
    try:
        return cls.model_validate(dict(values))
    except ValidationError as error:
        raise ConfigError(f"{source}: {_line(cls, values, error)}") from None


Files = str | Path | Sequence[str | Path] | None
"""A recipe's file, or several, of which later ones win; None for none."""


def load_recipe(cls: type[P], path: Files, overrides: Mapping[str, object] | None = None) -> P:
    """Read a YAML recipe, and those that it names as its `base`.

    Args:
        cls: The recipe's class.
        path: The file, or several; None where the overrides are all.
        overrides: Dotted names of options to values, which win over the files. A value may be the text of a flag; lists
            and mappings are then YAML in one line, such as JSON.

    Raises:
        ConfigError: If a file is missing, isn't a mapping, or has an option that is unknown or wrong.
    """
    layers = read_layers(_paths(path))
    values = merged(layers)
    known = {found.name: found for found in options_of(cls)}
    for name, value in (overrides or {}).items():
        _put(values, name.split("."), _parsed(value, known.get(name)) if isinstance(value, str) else value)
    try:
        return cls.model_validate(values)
    except ValidationError as error:
        line = _line(cls, values, error)
    wrong = re.split(r"[\s']", line.removeprefix("unknown option '"), maxsplit=1)[0]
    if not layers:
        source = "options"
    elif _is_given(wrong, overrides or {}):
        source = f"options given beside {layers[-1].source}"
    else:
        source = next((layer for layer in reversed(layers) if _is_given(wrong, flat(layer.values))), layers[-1]).source
    raise ConfigError(f"{source}: {line}")


def stacked(path: Files, overrides: Mapping[str, object] | None = None) -> list[str]:
    """Lines on what of several recipes, and of the flags above them, wins over what; none for a single file alone."""
    layers = read_layers(_paths(path))
    flags = Layer("flags", dict(overrides or {}))
    return replaced([*layers, flags] if overrides else layers) if len(layers) > 1 else []


def recipe_values(path: Files) -> dict[str, object]:
    """What recipes and those below them say, unchecked.

    Raises:
        ConfigError: If a file can't be read, or holds no options.
    """
    return merged(read_layers(_paths(path)))


def _paths(path: Files) -> Sequence[str | Path]:
    return [] if path is None else [path] if isinstance(path, (str, Path)) else path


def _is_given(wrong: str, overrides: Mapping[str, object]) -> bool:
    """Whether the option that is wrong is one of the overrides, in one of them, or one of them in it."""
    return any(f"{name}.".startswith(f"{wrong}.") or f"{wrong}.".startswith(f"{name}.") for name in overrides)


def json_schema(*classes: type[Part]) -> JSON:
    """The JSON schema of a recipe, or of one of several, by which editors complete and check the YAML."""
    if len(classes) == 1:
        schema = classes[0].model_json_schema()
        schema["properties"][BASE] = BASE_SCHEMA
    else:
        names, schema = models_json_schema([(cls, "validation") for cls in classes])
        schema["anyOf"] = list(names.values())
        for cls in classes:
            schema["$defs"][cls.__name__]["properties"][BASE] = BASE_SCHEMA
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


@dataclass(frozen=True)
class Option:
    """An option of a recipe, as flags and tables have to know it.

    Attributes:
        name: Its dotted name.
        part: The class that has it. Of the several parts that may stand in one place, as in `conditioning`, more than
            one may have an option of the same name.
        field: What pydantic knows of it: `annotation`, `get_default(call_default_factory=True)`, `is_required()`.
    """

    name: str
    part: type[Part]
    field: FieldInfo

    @property
    def description(self) -> str:
        """The text below it in the class, in one line."""
        return " ".join((self.field.description or "").split())

    @property
    def allowed(self) -> str:
        """What values it takes, in words."""
        return allowed(self.field)


def options_of(cls: type[Part], prefix: str = "") -> Iterator[Option]:
    """All options of a recipe, those of its parts included; a part itself is one where it may be null or of a type."""
    for name, field in cls.model_fields.items():
        parts = parts_of(field)
        if not parts or len(members(field.annotation)) > 1:
            yield Option(prefix + name, cls, field)
        for part in parts:
            yield from options_of(part, f"{prefix}{name}.")


def parts_of(field: FieldInfo) -> list[type[Part]]:
    """The parts that an option may be."""
    return [kind for kind in members(field.annotation) if isinstance(kind, type(Part))]


def named(value: object) -> object:
    """A name alone, which is short for the part of that type, as the mapping that it stands for."""
    return {"type": value} if isinstance(value, str) else value


def _line(cls: type[Part], values: Mapping[str, object], error: ValidationError) -> str:
    return first_wrong(cls, values, error).line([(found.name, found.part) for found in options_of(cls)])


def _parsed(text: str, known: Option | None) -> object:
    """The text of a flag: as it is, but YAML where a list or mapping is meant, and inside a free mapping."""
    if known is not None and (text[:1] not in ("[", "{") or members(known.field.annotation) == [str]):
        return text
    try:
        return parse_yaml(text)
    except ValueError:
        return text


def _put(values: dict[str, object], place: list[str], value: object) -> None:
    """Set an option in nested mappings; what is no mapping on the way stays, to be refused."""
    first, *rest = place
    if not rest:
        values[first] = value
        return
    inner = values.get(first)
    inner = {} if inner is None else named(inner)
    if isinstance(inner, dict):
        values[first] = inner = dict(inner)
        _put(inner, rest, value)
