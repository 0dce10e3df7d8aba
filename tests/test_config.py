from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from latentdiff.config import check, from_mapping
from latentdiff.errors import ConfigError


@dataclass(frozen=True)
class Options:
    folder: str
    steps: int = 10
    rate: float = 0.1
    flip: bool = False
    precision: Literal["no", "bf16"] = "no"
    limit: float | None = None
    resume: str | None = None
    sizes: list[int] = field(default_factory=list)
    widths: tuple[int, ...] = ()
    span: tuple[float, float] = (0.0, 1.0)
    model: dict[str, Any] = field(default_factory=dict)
    anything: Any = None


def made(**values):
    return from_mapping(Options, {"folder": "data", **values}, "recipe.yaml")


@pytest.mark.parametrize(
    ("name", "given", "value"),
    [
        ("steps", 3, 3),
        ("steps", "3", 3),
        ("steps", " +3 ", 3),
        ("steps", "1e4", 10_000),
        ("steps", 1e4, 10_000),
        ("steps", "9007199254740993", 2**53 + 1),
        ("steps", "-1", -1),
        ("rate", "1e-4", 1e-4),
        ("rate", 1, 1.0),
        ("flip", True, True),
        ("flip", "true", True),
        ("flip", "False", False),
        ("flip", "yes", True),
        ("flip", "off", False),
        ("precision", "bf16", "bf16"),
        ("precision", False, "no"),
        ("limit", None, None),
        ("limit", "null", None),
        ("limit", "5", 5.0),
        ("resume", "none", None),
        ("resume", "latest", "latest"),
        ("sizes", [1, "2"], [1, 2]),
        ("sizes", (1,), [1]),
        ("sizes", [], []),
        ("widths", [32, 64.0], (32, 64)),
        ("span", [0, "0.5"], (0.0, 0.5)),
        ("model", {"a": [1]}, {"a": [1]}),
        ("anything", object, object),
    ],
)
def test_values_become_the_field_s_type(name, given, value):
    result = getattr(made(**{name: given}), name)
    assert result == value
    assert type(result) is type(value)


@pytest.mark.parametrize(
    ("name", "given", "allowed"),
    [
        ("folder", 3, "str"),
        ("steps", "many", "int"),
        ("steps", 1.5, "int"),
        ("steps", "1e400", "int"),
        ("steps", "nan", "int"),
        ("steps", True, "int"),
        ("steps", None, "int"),
        ("steps", [1], "int"),
        ("rate", "fast", "float"),
        ("rate", False, "float"),
        ("rate", 10**400, "float"),
        ("flip", 1, "bool"),
        ("flip", "maybe", "bool"),
        ("precision", "fp8", "'no' or 'bf16'"),
        ("precision", True, "'no' or 'bf16'"),
        ("limit", "some", "float or null"),
        ("resume", 3, "str or null"),
        ("sizes", 3, r"list\[int\]"),
        ("sizes", ["a"], r"list\[int\]"),
        ("sizes", "12", r"list\[int\]"),
        ("widths", [None], r"tuple\[int, \.\.\.\]"),
        ("span", [1], r"tuple\[float, float\]"),
        ("span", [1, 2, 3], r"tuple\[float, float\]"),
        ("model", [1], "a mapping"),
        ("model", "{}", "a mapping"),
    ],
)
def test_a_value_of_another_type_is_an_error_of_one_line(name, given, allowed):
    with pytest.raises(ConfigError, match=rf"^recipe\.yaml: {name} is .*; it must be {allowed}$"):
        made(**{name: given})


def test_an_unknown_option_names_its_neighbour():
    with pytest.raises(ConfigError, match=r"^recipe\.yaml: unknown option 'step'; did you mean 'steps' or"):
        made(step=3)


def test_a_missing_option_is_named():
    with pytest.raises(ConfigError, match=r"^recipe: 'folder' is missing; it is a str, add it$"):
        from_mapping(Options, {})


def test_defaults_stay():
    assert made() == Options("data")


def test_check():
    check(True, "fine")
    with pytest.raises(ConfigError, match="not fine"):
        check(False, "not fine")
