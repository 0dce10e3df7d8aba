"""What a checkpoint says, read and checked as a whole before a run takes over anything of it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, Field
from safetensors.torch import load_file
from torch import nn

from latentdiff.errors import CheckpointError, one_line
from latentdiff.training.engine.checkpoint import AVERAGES_FILE, MOMENTS_FILE, NUMBERS_FILE, WEIGHTS_FILE, step_of
from latentdiff.training.engine.optimizers import moments_of, progress_of
from latentdiff.training.engine.options import OptimizerOptions
from latentdiff.training.engine.packaged import is_packaged
from latentdiff.types import JSON

SPREAD = ("row_var", "col_var")  # Adafactor's means over rows and columns, of a parameter's shape but for these


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class LogState(_Strict):
    """What of the log is not written yet, as `Log.state` says it."""

    sums: dict[str, float]
    counts: dict[str, int]
    count: int = Field(ge=0)
    skipped: int = Field(ge=0)
    waiting: str = ""


class BestState(_Strict):
    """The best validation so far, as `Best.state` says it."""

    name: str
    value: float | None
    step: int = Field(ge=0)
    without_gain: int = Field(ge=0)
    kept: dict[str, float] = {}


class Numbers(_Strict):
    """The file `state.json` of a checkpoint.

    Attributes:
        step: The steps that were made or skipped.
        ema_updates: The updates of the averaged weights.
        scaler: The state of fp16's scaler; empty without.
        log: The log's line that is not full yet.
        best: The best validation so far; None in checkpoints that are older than this.
        recipe: What has to stay; see `resume_check`.
    """

    step: int = Field(ge=0)
    ema_updates: int = Field(ge=0)
    scaler: dict[str, int | float]
    log: LogState
    best: BestState | None = None
    recipe: dict[str, object]


class Saved(NamedTuple):
    """A checkpoint, on the CPU.

    Attributes:
        numbers: All but the tensors.
        weights: What the task's `state_dict` was.
        averages: The averaged weights, none without EMA.
        moments: What the optimiser's `state_dict` was.
    """

    numbers: Numbers
    weights: dict[str, torch.Tensor]
    averages: dict[str, torch.Tensor]
    moments: JSON


@contextmanager
def explained(folder: Path) -> Iterator[None]:
    """Turn whatever a damaged file brings about into a CheckpointError.

    Reading fails in as many ways as there are parsers: torch's alone raises errors of zipfile, pickle, struct and its
    own. So this catches all of them, and stands around nothing but reading and comparing.
    """
    try:
        yield
    except Exception as error:
        raise CheckpointError(f"{folder} cannot be resumed ({one_line(error)}); use another") from None


def read_checkpoint(folder: Path) -> Saved:
    """Read a checkpoint.

    Raises:
        CheckpointError: If it is damaged.
    """
    with explained(folder):
        numbers = Numbers.model_validate(json.loads((folder / NUMBERS_FILE).read_text(encoding="utf-8")))
        if numbers.step != step_of(folder):
            raise ValueError(f"{NUMBERS_FILE} is of step {numbers.step}")
        if numbers.log.counts.keys() != numbers.log.sums.keys() or min(numbers.log.counts.values(), default=1) < 1:
            raise ValueError(f"{NUMBERS_FILE} has a line of the log that is damaged")
        if not all(0 < value < math.inf for value in numbers.scaler.values() if value):
            raise ValueError(f"{NUMBERS_FILE} has a scale that is no number above 0")
        if numbers.best is not None and math.isnan(numbers.best.value or 0.0):
            raise ValueError(f"{NUMBERS_FILE} has a best value that is not a number")
        weights, averages = load_file(folder / WEIGHTS_FILE), load_file(folder / AVERAGES_FILE)
        moments = torch.load(folder / MOMENTS_FILE, weights_only=True, map_location="cpu")
        return Saved(numbers, weights, averages, moments)


def check_weights(file: str, found: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor]) -> None:
    """Raise ValueError unless tensors have the names, shapes and types of those they are to replace, and are finite."""
    for name in sorted({*found, *own}):
        if name not in found or name not in own:
            raise ValueError(f"{file} {'lacks' if name in own else 'has also'} {name}")
        new, old = found[name], own[name]
        if (new.shape, new.dtype) != (old.shape, old.dtype):
            shapes = f"{list(new.shape)} {new.dtype}, where {list(old.shape)} {old.dtype} is needed"
            raise ValueError(f"{file} has {name} as {shapes}")
        if not new.isfinite().all() and old.isfinite().all():
            raise ValueError(f"{file} has {name} with values that are not finite")


def fitting_moments(
    saved: JSON, optimizer: torch.optim.Optimizer, parameters: Sequence[nn.Parameter], options: OptimizerOptions
) -> JSON:
    """The saved state of an optimiser, with the settings that the optimiser has now.

    Args:
        saved: What the `state_dict` was, whole.
        optimizer: The optimiser.
        parameters: All parameters that it trains, in its order.
        options: What it was made of.

    Raises:
        ValueError: Or another error, if it is the state of something else.
    """
    (own,) = optimizer.param_groups
    (group,) = saved["param_groups"]
    numbers, shapes = list(group["params"]), [parameter.shape for parameter in parameters]
    if numbers != list(range(len(shapes))) or not saved["state"].keys() <= {*numbers}:
        raise ValueError(f"{MOMENTS_FILE} is of other parameters")
    settings = {**own, **_progress(group, own, options), "params": numbers}
    if is_packaged(options.name):  # whose state may have any form; that of its numbers was compared with the manifest
        for number, values in saved["state"].items():
            for name, value in values.items():
                _check_finite(f"{name} of parameter {number}", value)
        return {"state": saved["state"], "param_groups": [settings]}
    examples = {dimensions: moments_of(options, dimensions) for dimensions in {len(shape) for shape in shapes}}
    for number, values in saved["state"].items():
        like = examples[len(shapes[number])]
        if values.keys() != like.keys():
            raise ValueError(f"{MOMENTS_FILE} has {', '.join(values)} of parameter {number}, not {', '.join(like)}")
        for name, value in values.items():
            _check_moment(name, value, like[name], shapes[number])
    return {"state": saved["state"], "param_groups": [settings]}


def _progress(group: JSON, own: JSON, options: OptimizerOptions) -> JSON:
    """What a saved group of parameters says of how far the optimiser has come."""
    found: JSON = {}
    for name in sorted(progress_of(options, own)):
        value = group[name]
        if type(value) is not type(own[name]) and {type(value), type(own[name])} != {int, float}:
            raise ValueError(f"{MOMENTS_FILE} has {name} {value!r}, where a value such as {own[name]!r} is needed")
        _check_finite(name, value)
        found[name] = value
    return found


def _check_finite(name: str, value: object) -> None:
    """Raise ValueError for a number, or a tensor of them, that isn't finite."""
    if isinstance(value, (int, float, torch.Tensor)) and not torch.as_tensor(value).isfinite().all():
        raise ValueError(f"{MOMENTS_FILE} has {name} that is not finite")


def _check_moment(name: str, value: object, like: object, shape: torch.Size) -> None:
    """Raise ValueError unless `value` is for a parameter of some shape what `like` is for a small one."""
    if not isinstance(value, torch.Tensor) or not isinstance(like, torch.Tensor):
        fits = type(value) is type(like)
    elif (value.dtype, value.layout) != (like.dtype, like.layout):
        fits = False
    elif like.dim() == 0:
        fits = value.dim() == 0
    elif name in SPREAD:
        fits = value.dim() == len(shape) and all(
            one in (1, whole) for one, whole in zip(value.shape, shape, strict=True)
        )
    else:
        fits = value.shape == shape
    finite = torch.as_tensor(0 if value is None else value).isfinite().all()
    if not fits or not finite:
        raise ValueError(f"{MOMENTS_FILE} has {name} that does not fit its parameter, or is not finite")
