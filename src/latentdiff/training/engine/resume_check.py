"""Whether a run that goes on is the same run."""

from __future__ import annotations

import dataclasses
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from latentdiff.errors import ConfigError, LatentDiffWarning
from latentdiff.training.recipes.run import MAY_CHANGE, REMEDIES, Recipe, as_dict, default_of


def identity(recipe: Recipe, images_in_step: int, images: int) -> dict[str, Any]:
    """What has to stay, by dotted names, as JSON holds it.

    Args:
        recipe: Of the run, without the options that may change.
        images_in_step: Of all processes; how they are split may change.
        images: Their number in the data, whose place may change.
    """
    flat = _flat({"kind": type(recipe).__name__, **as_dict(recipe), "images in the data": images})
    flat["images in a step (train_batch_size x gradient_accumulation_steps x processes)"] = images_in_step
    return _fixed(flat)


def defaults(kind: type[Recipe]) -> dict[str, Any]:
    """What options were for a checkpoint that is older than they are."""
    return {option.name: default_of(option) for option in dataclasses.fields(kind)}


def check_same(folder: Path, theirs: Mapping[str, Any], ours: Mapping[str, Any], older: Mapping[str, Any]) -> None:
    """A ConfigError where a run would go on with another recipe; what may help a run that fails is but said.

    Args:
        folder: The checkpoint.
        theirs: Its identity.
        ours: That of the run.
        older: Values that are meant where the checkpoint has none.
    """
    known = {name.partition(".")[0] for name in theirs}
    theirs = _fixed({**{name: value for name, value in older.items() if name not in known}, **theirs})
    changed = {
        name: f"{name} is {ours.get(name)}, was {theirs.get(name)}"
        for name in sorted({*theirs, *ours})
        if theirs.get(name) != ours.get(name)
    }
    other = [text for name, text in changed.items() if name not in REMEDIES]
    if other:
        raise ConfigError(f"{folder} was made with another recipe: {'; '.join(other)}; use its recipe, or start anew")
    if changed:
        line = f"going on from {folder.name}, but {'; '.join(changed.values())}"
        warnings.warn(LatentDiffWarning(line), stacklevel=2)


def _fixed(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Those that may not change, as JSON holds them."""
    fixed = {name: value for name, value in flat.items() if not _may_change(name.partition(".")[0])}
    return json.loads(json.dumps(fixed, default=str))  # type: ignore[no-any-return]


def _may_change(option: str) -> bool:
    return option in MAY_CHANGE or option.startswith("validation_")


def _flat(options: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in options.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) and value else {prefix + name: value}
    return flat
