"""Reading the original code's YAML: nodes of a target and its parameters; nothing is passed over in silence."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from latentdiff.errors import ConfigError
from latentdiff.registry import nearest

Params = Mapping[str, Any]


def read_config(config: str | Path | Mapping[str, Any]) -> dict[str, Any]:
    """The model node `{"target": ..., "params": ...}` of a YAML file, or of what stood in one.

    Raises:
        ConfigError: If the file can't be read or has no model.
    """
    source = "config" if isinstance(config, Mapping) else str(config)
    values: Any = config
    if not isinstance(config, Mapping):
        try:
            text = Path(config).read_text(encoding="utf-8")
            if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text)):
                raise ConfigError(
                    f"config {config} repeats values by alias (*name), of which a few make billions; write them out"
                )
            values = yaml.safe_load(text)
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"config {config} cannot be read ({error}); give the model's YAML file") from None
        except (yaml.YAMLError, RecursionError) as error:
            raise ConfigError(f"config {config} is not YAML: {' '.join(str(error).split())[:200]}") from None
    node = values.get("model", values) if isinstance(values, Mapping) else None
    if not isinstance(node, Mapping) or not isinstance(node.get("target"), str):
        raise ConfigError(f"{source} has no model with a target; give the YAML that the model was trained with")
    return dict(node)


def class_of(node: object, where: str) -> str:
    """The class name that a node's target ends with, or the node itself where it is a word (`__is_first_stage__`).

    Names are looked up in tables only: nothing of the target is imported.
    """
    if isinstance(node, str):
        return node
    if not isinstance(node, Mapping) or not isinstance(node.get("target"), str):
        raise ConfigError(f"{where} is {node!r}; it must have a target, such as ldm.models.autoencoder.AutoencoderKL")
    return str(node["target"]).rsplit(".", 1)[-1]


def params_of(node: object, where: str) -> dict[str, Any]:
    """The parameters of a node; none is an empty dict."""
    params = node.get("params") if isinstance(node, Mapping) else None
    if params is None:
        return {}
    if not isinstance(params, Mapping):
        raise ConfigError(f"{where} has params {params!r}; they must be a mapping")
    return dict(params)


def take(
    params: Params,
    where: str,
    *,
    known: Mapping[str, Any],
    fixed: Mapping[str, tuple[Any, ...]],
    ignored: tuple[str, ...],
) -> dict[str, Any]:
    """The parameters of `known`, with its defaults where they are left out.

    Args:
        params: As the YAML has them.
        where: What they belong to, for messages.
        known: Names that matter, and defaults; `...` for those that must be there.
        fixed: Names that must have one of these values where they are given.
        ignored: Names that don't change the network.

    Raises:
        ConfigError: On a missing or unknown parameter, or a value outside of what can be represented.
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
        if default is ... and name not in params:
            raise ConfigError(f"{where} lacks {name!r}; give the YAML that the model was trained with")
    return {name: params.get(name, default) for name, default in known.items()}


def numbers(value: Any, where: str) -> tuple[int, ...]:
    """A list of whole numbers from 0 on, or a ConfigError."""
    if not isinstance(value, (list, tuple)) or not all(type(entry) is int and 0 <= entry < 2**31 for entry in value):
        raise ConfigError(f"{where} is {value!r}; it must be a list of whole numbers")
    return tuple(value)


def number(value: Any, where: str) -> int:
    """A positive whole number, or a ConfigError."""
    if type(value) is not int or not 0 < value < 2**31:
        raise ConfigError(f"{where} is {value!r}; it must be a positive whole number")
    return value
