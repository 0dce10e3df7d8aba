"""Reading the original code's YAML, whose nodes have a target (a class) and its parameters; no parameter is ignored."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import yaml

from latentdiff.errors import ConfigError, one_line
from latentdiff.io.file_kinds import near_names
from latentdiff.reading import MAX_YAML_CHARACTERS, parse_yaml, read_text
from latentdiff.registry import nearest
from latentdiff.types import JSON

MAX_LEVELS = 32
MAX_LAYERS = 1000
MAX_WIDTH = 2**24  # of anything that is counted in channels, classes, tokens or codes

REQUIRED = object()
"""In place of a default, in a table of parameters: the parameter must be given."""


def read_config(config: str | Path | Mapping[str, object]) -> JSON:
    """The model node `{"target": ..., "params": ...}` of a YAML file, or of the content of one.

    Raises:
        ConfigError: If the file can't be read or has no model.
    """
    source = "config" if isinstance(config, Mapping) else str(config)
    values: object = config
    if not isinstance(config, Mapping):
        try:
            text = read_text(config)
            short = len(text) <= MAX_YAML_CHARACTERS
            aliases = short and any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text))
            values = None if aliases else parse_yaml(text)
        except FileNotFoundError:
            raise ConfigError(f"no such file: {config}; {near_names(Path(config))}") from None
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or one_line(error)
            raise ConfigError(f"config {config} cannot be read ({reason}); give the model's YAML file") from None
        except (yaml.YAMLError, ValueError) as error:
            raise ConfigError(f"config {config} is not YAML: {one_line(error)}") from None
        if aliases:
            raise ConfigError(
                f"config {config} repeats values by alias (*name), of which a few make billions; write them out"
            )
    node = values.get("model", values) if isinstance(values, Mapping) else None
    if not isinstance(node, Mapping) or not isinstance(node.get("target"), str):
        raise ConfigError(f"{source} has no model with a target; give the YAML that the model was trained with")
    return dict(node)


def class_of(node: object, where: str) -> str:
    """The class name at the end of a node's target, or the node itself if it is a word such as `__is_first_stage__`.

    The name is looked up in tables only; nothing of the target is imported.

    Raises:
        ConfigError: If the node has no target.
    """
    if isinstance(node, str):
        return node
    if not isinstance(node, Mapping) or not isinstance(node.get("target"), str):
        raise ConfigError(f"{where} is {node!r}; it must have a target, such as ldm.models.autoencoder.AutoencoderKL")
    return str(node["target"]).rsplit(".", 1)[-1]


def params_of(node: object, where: str) -> JSON:
    """The parameters of a node, an empty dict if it has none.

    Raises:
        ConfigError: If they are no mapping.
    """
    params = node.get("params") if isinstance(node, Mapping) else None
    if params is None:
        return {}
    if not isinstance(params, Mapping):
        raise ConfigError(f"{where} has params {params!r}; they must be a mapping")
    return dict(params)


def take_params(
    params: JSON,
    where: str,
    *,
    known: Mapping[str, object],
    fixed: Mapping[str, tuple[object, ...]],
    ignored: tuple[str, ...],
) -> JSON:
    """The parameters in `known`, with their defaults where they are left out.

    Args:
        params: The parameters in the YAML.
        where: The name, in messages, of what they belong to.
        known: The parameters that matter, with their defaults, or `REQUIRED` for those that must be given.
        fixed: Parameters that must have one of these values if they are given.
        ignored: Parameters that don't change the network.

    Raises:
        ConfigError: If a parameter is missing or unknown, or has a value that can't be converted.
    """
    for name, value in params.items():
        if name not in known and name not in fixed and name not in ignored:
            raise ConfigError(
                f"{where} has the unknown parameter {name!r}; {nearest(name, {*known, *fixed, *ignored})}"
            )
        if name in fixed and value not in fixed[name]:
            allowed = " or ".join(map(repr, fixed[name]))
            raise ConfigError(f"{where} has {name}={value!r}; only {allowed} can be converted")
    for name, default in known.items():
        if default is REQUIRED and name not in params:
            raise ConfigError(f"{where} lacks {name!r}; give the YAML that the model was trained with")
    return {name: params.get(name, default) for name, default in known.items()}


def integer_list(value: object, where: str) -> tuple[int, ...]:
    """Check that a parameter is a list of at most `MAX_LEVELS` whole numbers, and return it; else a ConfigError."""
    if not isinstance(value, (list, tuple)) or not all(type(entry) is int and 0 <= entry < 2**31 for entry in value):
        raise ConfigError(f"{where} is {value!r}; it must be a list of whole numbers")
    if len(value) > MAX_LEVELS:
        raise ConfigError(f"{where} has {len(value)} entries; at most {MAX_LEVELS} can be converted")
    return tuple(value)


def positive_integer(value: object, where: str, most: int = MAX_WIDTH) -> int:
    """Check that a parameter is an integer from 1 to `most`, and return it; else raise a ConfigError."""
    if type(value) is not int or not 0 < value <= most:
        raise ConfigError(f"{where} is {value!r}; it must be a whole number from 1 to {most}")
    return value


def share(value: object, where: str) -> float:
    """Check that a parameter is a number from 0 to 1, and return it; else raise a ConfigError."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise ConfigError(f"{where} is {value!r}; it must be a number from 0 to 1")
    return float(value)
