"""What guidance objects share."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from latentdiff.errors import InputError

Interval = tuple[float, float]
"""Part of the steps in which guidance acts, as fractions from 0 (first) to 1 (last); the end is left out."""


def check_interval(interval: Interval) -> None:
    """Raise InputError unless 0 <= start < end <= 1."""
    low, high = interval
    if not 0 <= low < high <= 1:
        raise InputError(f"guidance_interval is {interval}; it must be (start, end) with 0 <= start < end <= 1")


def check_scale(scale: float) -> None:
    """Raise InputError unless the strength is a finite number."""
    if isinstance(scale, bool) or not isinstance(scale, (int, float)) or not math.isfinite(scale):
        raise InputError(f"scale is {scale!r}; it must be a finite number")


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
