"""Whether a run that goes on is the same run, by what its options say of themselves: `option(resume=...)`."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic_core import PydanticUndefined

from latentdiff.config import Part, flat, trait
from latentdiff.data.views import Views
from latentdiff.errors import ConfigError, LatentDiffWarning
from latentdiff.training.engine.checkpoint import NUMBERS_FILE
from latentdiff.training.engine.options import Recipe
from latentdiff.types import JSON

FIRST_STAGE = "weights of the first stage"
IMAGES = "images in the data"
IMAGES_IN_STEP = "images in a step (train_batch_size x gradient_accumulation_steps x processes)"


@dataclass(frozen=True)
class _Said:
    """An option's value in a recipe; the default is PydanticUndefined if it has none."""

    name: str
    value: object
    default: object
    resume: object


def _options(part: Part, prefix: str = "", resume: object = "fixed") -> Iterator[_Said]:
    """All options of a recipe, by dotted names; what a part says of a resume holds for all in it."""
    for name, field in type(part).model_fields.items():
        value, own = getattr(part, name), trait(field, "resume") or resume
        if isinstance(value, Part):
            yield from _options(value, f"{prefix}{name}.", own)
        else:
            yield _Said(prefix + name, value, field.get_default(call_default_factory=True), own)


def identity(recipe: Recipe, images_in_step: int, images: int) -> dict[str, object]:
    """What has to stay, by dotted names, as JSON holds it.

    Args:
        recipe: The run's recipe, whose options that may change are left out.
        images_in_step: The images of a step, over all processes; how they are split may change.
        images: Their number in the data, whose place may change.
    """
    kept = {said.name: said.value for said in _options(recipe) if said.resume != "free"}
    kept |= {"kind": type(recipe).__name__, IMAGES: images}
    kept[IMAGES_IN_STEP] = images_in_step
    return _plain(kept)


def check_same(
    folder: Path, theirs: Mapping[str, object], ours: Mapping[str, object], recipe: Recipe, *, quiet: bool = False
) -> None:
    """A ConfigError where a run would go on with another recipe; what may help a run that diverges is but said.

    Args:
        folder: The checkpoint.
        theirs: The identity of the run that made it, which may be older than an option, and then had its default.
        ours: The identity of this run.
        recipe: The recipe of this run.
        quiet: Whether to leave out the warning of what may differ.
    """
    options = [said for said in _options(recipe) if said.resume != "free"]
    newer = [said for said in options if said.default is not PydanticUndefined and not _has(theirs, said.name)]
    theirs = {**_plain({said.name: said.default for said in newer}), **theirs}
    if FIRST_STAGE not in theirs:  # older than this
        ours = {name: value for name, value in ours.items() if name != FIRST_STAGE}
    changed = {
        name: f"{name} is {ours.get(name)}, was {theirs.get(name)}"
        for name in sorted({*theirs, *ours})
        if theirs.get(name) != ours.get(name)
    }
    remedies = {said.name for said in options if said.resume == "remedy"}
    other = [text for name, text in changed.items() if name not in remedies]
    if other:
        raise ConfigError(f"{folder} was made with another recipe: {'; '.join(other)}; use its recipe, or start anew")
    if changed and not quiet:
        line = f"going on from {folder.name}, but {'; '.join(changed.values())}"
        warnings.warn(LatentDiffWarning(line), stacklevel=2)


def check_before_caches(folder: Path | None, recipe: Recipe, images: int) -> None:
    """The same before the caches are made, which a run that is refused leaves as they are.

    Raises:
        ConfigError: If the checkpoint to go on from, if there is one, was made with another recipe or on more or fewer
            images.
    """
    theirs = _recorded(folder)
    if folder is None or not theirs:
        return
    copies = Views(recipe.data.resolution, crops=recipe.data.crops, flip=recipe.data.random_flip,
                   turn=recipe.data.random_rotate).copies  # fmt: skip
    if theirs.get(IMAGES) == copies * images:
        images *= copies  # a cache has all views
    later = {name: theirs[name] for name in (FIRST_STAGE, IMAGES_IN_STEP) if name in theirs}  # not known yet
    check_same(folder, theirs, {**identity(recipe, 0, images), **later}, recipe, quiet=True)


def recorded_first_stage(folder: Path | None) -> str | None:
    """What tells the first stage of a checkpoint's run from others, if the checkpoint says it."""
    found: str | None = _recorded(folder).get(FIRST_STAGE)
    return found


def _recorded(folder: Path | None) -> JSON:
    """What a checkpoint says of its run's recipe; nothing if it is damaged, of which `read_checkpoint` will tell."""
    try:
        said = json.loads((folder / NUMBERS_FILE).read_text(encoding="utf-8"))["recipe"] if folder else {}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}


def _has(identity: Mapping[str, object], option: str) -> bool:
    """Whether an identity has an option, something in it, or a part around it that was null."""
    return any(f"{name}.".startswith(f"{option}.") or f"{option}.".startswith(f"{name}.") for name in identity)


def _plain(values: Mapping[str, object]) -> dict[str, object]:
    """Values as JSON holds them, by dotted names; empty mappings are none."""
    found: dict[str, object] = json.loads(json.dumps(flat(values), default=str))
    return {name: value for name, value in found.items() if value != {}}
