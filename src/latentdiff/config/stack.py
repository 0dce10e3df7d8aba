"""Recipes on top of each other: what a file says wins over the files that it names as its `base`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from latentdiff.errors import ConfigError, one_line
from latentdiff.reading import parse_yaml, read_text

BASE = "base"
BASE_SCHEMA = {
    "anyOf": [{"type": "string"}, {"items": {"type": "string"}, "type": "array"}],
    "description": "Recipes below this one, relative to its folder: of several, and of their options, the last wins.",
}
CHOICES = ("type", "_class_name")  # by which a mapping says what it is; its other entries mean nothing to another kind


class Layer(NamedTuple):
    """What one file says, or the flags.

    Attributes:
        source: The file, or what else to call it.
        values: Names of options to values, nested.
    """

    source: str
    values: dict[str, object]


def read_layers(paths: Iterable[str | Path]) -> list[Layer]:
    """Read recipes and those below them, the lowest first.

    Raises:
        ConfigError: If a file can't be read, holds no options, or is below itself.
    """
    return [layer for path in paths for layer in _read(Path(path), ())]


def merged(layers: Iterable[Layer]) -> dict[str, object]:
    """What layers say together, of which later ones win: mappings are merged, all else is replaced."""
    values: dict[str, object] = {}
    for layer in layers:
        values = _over(values, layer.values)
    return values


def flat(values: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """Nested mappings as one of dotted names; empty ones stay."""
    found: dict[str, object] = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = value
    return found


def replaced(layers: Sequence[Layer]) -> list[str]:
    """Lines on what the layers are, and on each option that one of them replaces."""
    lines = [f"recipe: {', then '.join(layer.source for layer in layers)}"]
    said: dict[str, tuple[str, object]] = {}
    for layer in layers:
        for name, value in flat(layer.values).items():
            before = said.get(name)
            if before is not None and before[1] != value:
                lines.append(f"{name}: {value} of {layer.source}, in place of {before[1]} of {before[0]}")
            said[name] = layer.source, value
    return lines


def _read(path: Path, above: tuple[Path, ...]) -> Iterator[Layer]:
    if path.resolve() in above:
        raise ConfigError(f"{path} is below itself, as the recipes that it names as {BASE} lead back to it; break that")
    try:
        values = parse_yaml(read_text(path))
    except OSError as error:
        raise ConfigError(f"recipe {path} cannot be read ({error.strerror}); give a YAML file") from None
    except ValueError as error:
        raise ConfigError(f"recipe {path} is not YAML: {one_line(error)}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"recipe {path} holds no options; it must be a YAML mapping of option: value")
    bases = values.pop(BASE, None) or []
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise ConfigError(f"{path}: {BASE} is {bases!r}; it must be a file, or a list of files")
    for base in bases:
        yield from _read(path.parent / base, (*above, path.resolve()))
    yield Layer(str(path), values)


def _over(below: dict[str, object], above: Mapping[str, object]) -> dict[str, object]:
    found = dict(below)
    for name, value in above.items():
        old = found.get(name)
        if isinstance(old, dict) and isinstance(value, dict) and not _another_kind(old, value):
            found[name] = _over(old, value)
        else:
            found[name] = value
    return found


def _another_kind(old: Mapping[str, object], new: Mapping[str, object]) -> bool:
    return any(choice in new and new[choice] != old.get(choice) for choice in CHOICES)
