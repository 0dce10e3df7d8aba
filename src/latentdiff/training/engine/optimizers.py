"""Optimisers and learning rates by the recipe's part `optimizer`."""

from __future__ import annotations

import inspect
import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from typing import Protocol, runtime_checkable

import torch
from torch import nn

from latentdiff.config import check
from latentdiff.errors import ConfigError, one_line
from latentdiff.registry import nearest
from latentdiff.training.engine.ema import EMA
from latentdiff.training.engine.options import OptimizerOptions, Recipe
from latentdiff.training.engine.packaged import is_packaged, optimizer_class
from latentdiff.training.engine.schedules import make_factor
from latentdiff.types import JSON

FIXED: dict[str, JSON] = {"adamw_fused": {"fused": True}}


@runtime_checkable
class SelfAveraging(Protocol):
    """An optimiser that averages the weights by itself, such as the schedule-free ones (Defazio et al. 2024, arXiv
    2405.15682): it trains them at one point, uses them at another, and goes from one to the other.
    """

    param_groups: list[JSON]

    def train(self) -> None:
        """Put the weights where they are trained."""

    def eval(self) -> None:
        """Put the weights where they are used."""


def make_optimizer(parameters: Iterable[nn.Parameter], options: OptimizerOptions) -> torch.optim.Optimizer:
    """The optimiser: "adamw", "adamw_fused", a class of torch.optim or of another package, with `options`.

    Raises:
        ConfigError: If there is no such optimiser, or an option isn't for it.
    """
    kind = optimizer_class(options.name)
    called = options.name if is_packaged(options.name) else f"torch.optim.{kind.__name__}"
    takes = inspect.signature(kind).parameters
    shared = {"betas": (options.beta1, options.beta2), "weight_decay": options.weight_decay}
    arguments: JSON = {key: value for key, value in shared.items() if key in takes}
    arguments |= {"lr": options.learning_rate, **FIXED.get(options.name, {})}
    for fields, key in ((("beta1", "beta2"), "betas"), (("weight_decay",), "weight_decay")):
        unused = [f"optimizer.{field}" for field in fields if key not in takes and options.given(field)]
        check(not unused, f"{' and '.join(unused)} is given, but {called} has no {key}; leave it out")
    for key in options.options:
        if key not in takes or key in ("params", *arguments):
            raise ConfigError(
                f"optimizer.options has {key!r}, which {called} does not take or the recipe says elsewhere; "
                f"{nearest(key, set(takes) - {'params', *arguments})}"
            )
    try:
        with redirect_stdout(io.StringIO()):  # some say there how they are set
            return kind([*parameters], **arguments, **options.options)
    except Exception as error:  # of another package, of any kind
        raise ConfigError(f"optimizer {options.name!r} cannot be made: {one_line(error)}") from None


def check_optimizer(recipe: Recipe, device: torch.device) -> None:
    """Make a step with the recipe's optimiser, on a weight that nobody keeps.

    Raises:
        ConfigError: If it can't be made, makes no step on the device, or averages what is averaged anyway.
    """
    options = recipe.optimizer
    weight = nn.Parameter(torch.ones(4, 4, device=device))
    optimizer = make_optimizer([weight], options)
    check(
        not (averages_itself(optimizer) and recipe.ema.decay),
        f"optimizer.name is {options.name!r}, which averages the weights by itself; set ema.decay to 0",
    )
    try:
        _step_of_nothing(optimizer, weight)
    except Exception as error:  # of another package, of any kind
        raise ConfigError(f"optimizer {options.name!r} makes no step on this device: {one_line(error)}") from None


def moments_of(options: OptimizerOptions, dimensions: int) -> Mapping[str, object]:
    """What such an optimiser keeps for a small parameter of so many dimensions."""
    parameter = nn.Parameter(torch.zeros((2,) * dimensions))
    optimizer = make_optimizer([parameter], options)
    _step_of_nothing(optimizer, parameter)
    found: Mapping[str, object] = optimizer.state[parameter]
    return found


def progress_of(options: OptimizerOptions, group: Mapping[str, object]) -> set[str]:
    """The entries of an optimiser's group of parameters that are no settings, so that they change from step to step."""
    settings = inspect.signature(optimizer_class(options.name)).parameters
    return group.keys() - settings.keys() - {"params"} if is_packaged(options.name) else set()


def _step_of_nothing(optimizer: torch.optim.Optimizer, weight: nn.Parameter) -> None:
    if isinstance(optimizer, SelfAveraging):
        optimizer.train()
    weight.grad = torch.zeros_like(weight)
    optimizer.step()


def averages_itself(optimizer: torch.optim.Optimizer) -> bool:
    """Whether an optimiser, perhaps prepared by accelerate, is `SelfAveraging`."""
    return isinstance(getattr(optimizer, "optimizer", optimizer), SelfAveraging)


@contextmanager
def averaged(ema: EMA | None, optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Inside the block the weights are averaged, where the run averages them; afterwards they are those of before."""
    if ema is not None:
        with ema.applied():
            yield
    elif isinstance(optimizer, SelfAveraging) and averages_itself(optimizer):
        trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        kept = [parameter.detach().clone() for parameter in trained]  # the way back is exact but for rounding
        optimizer.eval()
        try:
            yield
        finally:
            optimizer.train()
            with torch.no_grad():
                for parameter, value in zip(trained, kept, strict=True):
                    parameter.copy_(value)
    else:
        yield


def make_learning_rate(recipe: Recipe, optimizer: torch.optim.Optimizer, num_processes: int) -> Callable[[int], float]:
    """The learning rate as a pure function of the step, which needs no state in checkpoints.

    Raises:
        ConfigError: If there is no such schedule.
    """
    factor = make_factor(recipe.optimizer, recipe.max_train_steps, optimizer)
    images = recipe.train_batch_size * recipe.gradient_accumulation_steps * num_processes
    base = recipe.optimizer.learning_rate * (images if recipe.optimizer.scale_lr else 1)
    return lambda step: base * factor(step)
