"""Learning rates as factors of the base rate: diffusers' schedules, and the two of the original code."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable

import torch
from diffusers.optimization import SchedulerType, get_scheduler

from latentdiff.config import check
from latentdiff.errors import ConfigError
from latentdiff.registry import nearest
from latentdiff.training.engine.options import OptimizerOptions

Factor = Callable[[int], float]
# The options that diffusers' `get_scheduler` hands on, by schedule.
OPTIONS = {"cosine_with_restarts": ["num_cycles"], "polynomial": ["power"], "piecewise_constant": ["step_rules"]}


def warmup_linear(
    warmup: int, steps: int, *, f_start: float = 1e-6, f_max: float = 1.0, f_min: float = 1.0, cycle: int | None = None
) -> Factor:
    """The original's `LambdaLinearScheduler`, with one cycle; where f_min is f_max it is constant after the warm-up."""
    length = cycle or steps

    def factor(step: int) -> float:
        if step < warmup:
            return f_start + (f_max - f_start) * step / warmup
        return f_min + (f_max - f_min) * max(0, length - step) / length

    return factor


def warmup_cosine(
    warmup: int, steps: int, *, lr_start: float = 1e-6, lr_max: float = 1.0, lr_min: float = 0.0
) -> Factor:
    """The original's `LambdaWarmUpCosineScheduler`, which ends at `steps`."""

    def factor(step: int) -> float:
        if step < warmup:
            return lr_start + (lr_max - lr_start) * step / warmup
        share = min(1.0, (step - warmup) / max(1, steps - warmup))
        return lr_min + (lr_max - lr_min) * (1 + math.cos(math.pi * share)) / 2

    return factor


WITHOUT_WARMUP = ("constant", "piecewise_constant")
ORIGINAL: dict[str, Callable[..., Factor]] = {"warmup_linear": warmup_linear, "warmup_cosine": warmup_cosine}


def make_factor(options: OptimizerOptions, steps: int, optimizer: torch.optim.Optimizer) -> Factor:
    """The learning rate's schedule as a pure function of the step.

    Args:
        options: Name the schedule, its options and its warm-up.
        steps: The steps of the whole run.
        optimizer: What diffusers' schedules are made for.

    Raises:
        ConfigError: If there is no such schedule, or it has no such option.
    """
    name, warmup = options.lr_scheduler, options.lr_warmup_steps
    own = ORIGINAL.get(name)
    known = list(inspect.signature(own).parameters)[2:] if own else OPTIONS.get(name, [])
    for given in options.lr_scheduler_options:
        if given not in known:
            raise ConfigError(
                f"optimizer.lr_scheduler_options has {given!r}, which {name} does not take; {nearest(given, known)}"
            )
    check(
        name not in WITHOUT_WARMUP or not warmup,
        f"optimizer.lr_warmup_steps is {warmup}, but lr_scheduler {name!r} has no warm-up; leave it out, or give "
        "constant_with_warmup",
    )
    try:
        if own:
            factor = own(warmup, steps, **options.lr_scheduler_options)
        else:
            sizes = {"num_warmup_steps": warmup, "num_training_steps": steps}
            factor = get_scheduler(name, optimizer, **sizes, **options.lr_scheduler_options).lr_lambdas[0]
        for step in (0, warmup, steps - 1):
            factor(step) + 0.0
    except (ValueError, TypeError, AttributeError) as error:
        known = [*ORIGINAL, *(kind.value for kind in SchedulerType)]
        reason = f"does not fit its options ({error})" if name in known else nearest(name, known)
        raise ConfigError(f"optimizer.lr_scheduler is {name!r}; {reason}") from None
    return factor
