"""What guidance objects share."""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Real

import numpy as np
import torch
from torch import Tensor

from latentdiff.errors import InputError

LARGEST_FLOAT = torch.finfo(torch.float32).max

Interval = tuple[float, float]
"""Part of the steps in which guidance acts, as fractions from 0 (first) to 1 (last); the end is left out."""


def finite_number(name: str, value: object) -> float:
    """Return a number, or a 0-d tensor or array, as a float; InputError, which calls it `name`, unless it is finite.

    Finite means in float32, in which guidance computes.
    """
    number = value.item() if isinstance(value, (Tensor, np.ndarray, np.generic)) and value.ndim == 0 else value
    try:
        found = float(number) if isinstance(number, Real) and not isinstance(number, bool) else math.nan
    except OverflowError:  # an integer of hundreds of digits
        found = math.inf
    if not abs(found) <= LARGEST_FLOAT:
        raise InputError(f"{name} is {value!r}; it must be a finite number")
    return found


def check_interval(interval: object) -> Interval:
    """Return (start, end) as two floats; InputError unless 0 <= start < end <= 1."""
    try:
        low, high = (finite_number("guidance_interval", fraction) for fraction in interval)  # type: ignore[attr-defined]
        if 0 <= low < high <= 1:
            return low, high
    except (TypeError, ValueError):  # an InputError is a ValueError
        pass
    raise InputError(f"guidance_interval is {interval!r}; it must be (start, end) with 0 <= start < end <= 1")


def check_rescale(rescale: object) -> float:
    """Return the share of the correction as a float; InputError unless it is in [0, 1]."""
    share = finite_number("guidance_rescale", rescale)
    if not 0 <= share <= 1:
        raise InputError(f"guidance_rescale is {share}; it must be in [0, 1]")
    return share


def check_batch(what: str, given: int, batch: int) -> None:
    """Raise InputError unless there is one for all images, or one each."""
    if given not in (1, batch):
        raise InputError(f"{given} {what} are given for {batch} images; give one each, or one")


def gradient(function: Callable[[Tensor], tuple[Tensor, Tensor]], at: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the gradient of a function's first result, summed, and its second result; also inside `torch.no_grad`.

    Where `at` is part of a graph already, of another guidance that differentiates this one, so is the second result.

    Raises:
        InputError: Inside `torch.inference_mode`, which no gradient gets out of.
    """
    if torch.is_inference_mode_enabled():
        raise InputError("this guidance needs gradients, which torch.inference_mode rules out; use torch.no_grad")
    with torch.enable_grad():
        nested = at.requires_grad
        leaf = at if nested else at.detach().requires_grad_()
        value, result = function(leaf)
        slope = torch.autograd.grad(value.sum(), leaf, retain_graph=nested)[0]
        return slope, result if nested else result.detach()
