from typing import Any, Literal

import pytest
import yaml
from pydantic import model_validator

from latentdiff.config import Part, check, from_mapping, json_schema, load_recipe, option, options_of
from latentdiff.errors import ConfigError


class Inner(Part):
    rate: float = option(0.1, gt=0, le=1)
    """How fast."""
    spans: list[tuple[float, float]] = option([])
    """Pairs."""


class Middle(Part):
    inner: Inner = Inner()
    """What is inside."""
    sure: bool = False
    """Whether it is sure."""

    @model_validator(mode="after")
    def _fits(self):
        check(not self.sure or self.given("inner"), "sure is true, but inner is not given")
        return self


class Options(Part):
    folder: str
    """Where."""
    steps: int = 10
    """How many, which
    takes two lines to say."""
    rate: float = 0.1
    flip: bool = False
    precision: Literal["no", "bf16"] = "no"
    limit: float | None = None
    resume: str | None = None
    sizes: list[int] = option([])
    widths: tuple[int, ...] = ()
    span: tuple[float, float] = (0.0, 1.0)
    model: dict[str, Any] = option({})
    anything: Any = None
    names: str | list[str] | None = None
    part: Middle = Middle()
    maybe: Inner | None = None
    few: int = option(1, ge=1)
    share: float | None = option(None, ge=0, le=1, note="null is the task's own")


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
        ("sizes", [1, "2e1"], [1, 20]),
        ("sizes", (1,), [1]),
        ("sizes", [], []),
        ("widths", [32, 64.0], (32, 64)),
        ("span", [0, "0.5"], (0.0, 0.5)),
        ("span", [0, "5e-1"], (0.0, 0.5)),
        ("model", {"a": [1]}, {"a": [1]}),
        (
            "model",
            {"a": [{"b": "1e-4", "c": "-1.5E+3", "d": "1e-4x"}]},
            {"a": [{"b": 1e-4, "c": -1500.0, "d": "1e-4x"}]},
        ),
        ("anything", object, object),
        ("names", "a", "a"),
        ("names", ["a", "b"], ["a", "b"]),
        ("part", {"inner": {"rate": "1e-4"}}, Middle(inner=Inner(rate=1e-4))),
        ("part", {"inner": {"spans": [["1e-1", 2]]}}, Middle(inner=Inner(spans=[(0.1, 2.0)]))),
        ("maybe", "null", None),
        ("maybe", {}, Inner()),
        ("few", "1e0", 1),
    ],
)
def test_values_become_the_field_s_type(name, given, value):
    result = getattr(made(**{name: given}), name)
    assert result == value
    assert type(result) is type(value)


@pytest.mark.parametrize(
    ("name", "given", "allowed"),
    [
        ("folder", 3, "text"),
        ("folder", True, "text"),
        ("steps", "many", "an integer"),
        ("steps", 1.5, "an integer"),
        ("steps", "1e400", "an integer"),
        ("steps", "nan", "an integer"),
        ("steps", True, "an integer"),
        ("steps", None, "an integer"),
        ("steps", [1], "an integer"),
        ("rate", "fast", "a number"),
        ("rate", False, "a number"),
        ("rate", 10**400, "a number"),
        ("flip", 1, "true or false"),
        ("flip", "maybe", "true or false"),
        ("precision", "fp8", "'no' or 'bf16'"),
        ("precision", True, "'no' or 'bf16'"),
        ("limit", "some", "a number or null"),
        ("resume", 3, "text or null"),
        ("sizes", 3, "a list of integers"),
        ("sizes", ["a"], "a list of integers"),
        ("sizes", [True], "a list of integers"),
        ("sizes", "12", "a list of integers"),
        ("widths", [None], "a list of integers"),
        ("span", [1], "a list of 2 numbers"),
        ("span", [1, True], "a list of 2 numbers"),
        ("span", [1, 2, 3], "a list of 2 numbers"),
        ("model", [1], "a mapping"),
        ("model", "{}", "a mapping"),
        ("names", 3, "text or a list of texts or null"),
        ("part", "fast", "a mapping of inner, sure"),
        ("part", None, "a mapping of inner, sure"),
        ("maybe", 3, "a mapping of rate, spans"),
        ("few", "many", "an integer of at least 1"),
        ("share", "x", "a number from 0 to 1, or null; null is the task's own"),
    ],
)
def test_a_value_of_another_type_is_an_error_of_one_line(name, given, allowed):
    with pytest.raises(ConfigError, match=rf"^recipe\.yaml: {name} is .*; it must be {allowed}$"):
        made(**{name: given})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"few": 0}, "few is 0; it must be at least 1"),
        ({"few": "0"}, "few is 0; it must be at least 1"),
        ({"share": 1.5}, "share is 1.5; it must be from 0 to 1, or null; null is the task's own"),
        ({"part": {"inner": {"rate": 0}}}, "part.inner.rate is 0; it must be above 0 and at most 1"),
        ({"part": {"inner": {"rate": "fast"}}}, "part.inner.rate is 'fast'; it must be a number above 0 and at most 1"),
        (
            {"part": {"inner": {"spans": [[1, "b"]]}}},
            "part.inner.spans is [[1, 'b']]; it must be a list of lists of 2 numbers",
        ),
        ({"maybe": {"rate": True}}, "maybe.rate is True; it must be a number above 0 and at most 1"),
        ({"part": {"sure": "yes"}}, "part.sure is true, but inner is not given"),
        ({"part": {1: 2}}, "unknown option 'part.1'; "),
    ],
)
def test_errors_have_the_place(values, message):
    with pytest.raises(ConfigError) as caught:
        made(**values)
    assert str(caught.value).startswith(f"recipe.yaml: {message}")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"step": 3}, "unknown option 'step'; did you mean 'steps'?"),
        ({"sure": True}, "unknown option 'sure'; did you mean 'part.sure'?"),
        ({"inner_rate": 1}, "unknown option 'inner_rate'; did you mean 'part.inner.rate'?"),
        ({"part": {"inner": {"raet": 1}}}, "unknown option 'part.inner.raet'; did you mean 'part.inner.rate'?"),
        (
            {"part": {"inner": {"raet": 1, "rate": "x"}}},
            "unknown option 'part.inner.raet'; did you mean 'part.inner.rate'?",
        ),
        ({"part": {"folder": 1}}, "unknown option 'part.folder'; did you mean 'folder'?"),
    ],
)
def test_an_unknown_option_names_its_neighbour(values, message):
    with pytest.raises(ConfigError) as caught:
        made(**values)
    assert str(caught.value).startswith(f"recipe.yaml: {message}")


def test_a_missing_option_is_named():
    with pytest.raises(ConfigError, match=r"^recipe: folder is missing; it must be text$"):
        from_mapping(Options, {})
    with pytest.raises(ConfigError, match=r"^recipe: unknown option 'foldr'; did you mean 'folder'\?$"):
        from_mapping(Options, {"foldr": "data"})


def test_python_raises_the_same_errors():
    with pytest.raises(ConfigError, match=r"^rate is 3; it must be above 0 and at most 1$"):
        Inner(rate=3)
    with pytest.raises(ConfigError, match=r"^inner\.rate is 'x'; it must be a number above 0"):
        Middle(inner={"rate": "x"})
    with pytest.raises(ConfigError, match=r"^unknown option 'raet'; did you mean 'rate'\?$"):
        Inner(raet=3)


def test_defaults_stay():
    assert made() == Options(folder="data")


def test_what_was_given_is_known():
    options = made(rate=0.1, part={"sure": False})
    assert options.given("rate") and not options.given("steps") and options.part.given("sure")
    assert not options.part.given("inner")
    changed = options.replace(steps="3")
    assert changed.steps == 3 and changed.given("rate") and not changed.given("flip") and changed.part is options.part
    with pytest.raises(ConfigError, match="few is 0"):
        options.replace(few=0)


def test_check():
    check(True, "fine")
    with pytest.raises(ConfigError, match="not fine"):
        check(False, "not fine")


def test_overrides_are_dotted_names_to_values_or_texts(tmp_path):
    values = {"folder": "data", "part": {"inner": {"rate": 1}, "sure": True}, "maybe": None, "model": {"a": {"b": 1}}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(values))
    overrides = {
        "steps": "1e3",
        "part.inner.rate": "1e-4",
        "maybe.rate": 0.5,
        "model.a.c": "1e-3",
        "model.a.d": "[1, two]",
        "sizes": "[1, 2]",
        "names": '["a", "b"]',
        "folder": "[odd",
    }
    found = load_recipe(Options, tmp_path / "recipe.yaml", overrides)
    assert found.steps == 1000 and found.part == Middle(inner=Inner(rate=1e-4), sure=True)
    assert found.maybe == Inner(rate=0.5) and found.model == {"a": {"b": 1, "c": 1e-3, "d": [1, "two"]}}
    assert found.sizes == [1, 2] and found.names == ["a", "b"] and found.folder == "[odd"
    assert load_recipe(Options, None, {"folder": "7", "names": "x", "part": "{sure: no}"}).folder == "7"
    for name, text, message in (
        ("part.inner.raet", "1", r"recipe\.yaml: unknown option 'part\.inner\.raet'; did you mean 'part\.inner\.rate'"),
        ("sizes", "12", r"recipe\.yaml: sizes is '12'; it must be a list of integers"),
        ("model", "{", r"recipe\.yaml: model is '{'; it must be a mapping"),
        ("steps.few", "1", r"recipe\.yaml: steps is "),
    ):
        with pytest.raises(ConfigError, match=rf"^options given beside .*{message}"):
            load_recipe(Options, tmp_path / "recipe.yaml", {name: text})
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({**values, "steps": "few"}))
    with pytest.raises(ConfigError, match=r"^/.*recipe\.yaml: steps is 'few'"):
        load_recipe(Options, tmp_path / "recipe.yaml", {"sizes": "[1]"})
    with pytest.raises(ConfigError, match=r"^options: steps is 'few'"):
        load_recipe(Options, None, {"steps": "few", "folder": "x"})


def test_files_that_are_no_recipes(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.yaml cannot be read .*; give a YAML file"):
        load_recipe(Options, tmp_path / "none.yaml")
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(ConfigError, match="it must be a YAML mapping"):
        load_recipe(Options, tmp_path / "list.yaml")
    (tmp_path / "bad.yaml").write_text("a: [1\nb: {")
    with pytest.raises(ConfigError, match="is not YAML") as caught:
        load_recipe(Options, tmp_path / "bad.yaml")
    assert "\n" not in str(caught.value)


def test_options_can_be_listed():
    found = {known.name: known for known in options_of(Options)}
    assert {"part.inner.rate", "part.sure", "maybe", "maybe.rate"} <= found.keys() and "part" not in found
    assert found["steps"].description == "How many, which takes two lines to say."
    assert found["part.inner.rate"].part is Inner and found["part.inner.rate"].field.default == 0.1
    assert found["few"].allowed == "an integer of at least 1"


def test_the_json_schema_has_names_bounds_and_descriptions():
    schema = json_schema(Options)
    assert schema["required"] == ["folder"] and schema["additionalProperties"] is False
    rate = schema["$defs"]["Inner"]["properties"]["rate"]
    assert rate["exclusiveMinimum"] == 0 and rate["maximum"] == 1 and rate["description"] == "How fast."
    assert {part["$ref"].rpartition("/")[2] for part in json_schema(Inner, Middle)["anyOf"]} == {"Inner", "Middle"}
