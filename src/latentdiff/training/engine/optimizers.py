"""Optimisers and learning rates by the recipe's part `optimizer`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import nn

from latentdiff.config import check
from latentdiff.errors import ConfigError
from latentdiff.registry import nearest
from latentdiff.training.engine.options import OptimizerOptions, Recipe
from latentdiff.training.engine.schedules import make_factor
from latentdiff.types import JSON

SHORT: dict[str, tuple[str, JSON]] = {"adamw": ("AdamW", {}), "adamw_fused": ("AdamW", {"fused": True})}
UNFIT = {"Optimizer", "LBFGS", "SparseAdam", "Muon"}  # they need a closure, sparse gradients or matrices alone


def make_optimizer(parameters: Iterable[nn.Parameter], options: OptimizerOptions) -> torch.optim.Optimizer:
    """The optimiser: "adamw", "adamw_fused", or a class of torch.optim with `options`.

    Raises:
        ConfigError: If there is no such optimiser, or an option isn't for it.
    """
    classes: dict[str, Callable[..., torch.optim.Optimizer]] = {
        name: kind
        for name, kind in vars(torch.optim).items()
        if inspect.isclass(kind) and issubclass(kind, torch.optim.Optimizer) and name not in UNFIT
    }
    name, fixed = SHORT.get(options.name, (options.name, {}))
    if name not in classes:
        known = [*SHORT, *sorted(classes)]
        raise ConfigError(f"optimizer.name is {options.name!r}; {nearest(options.name, known)}")
    takes = inspect.signature(classes[name]).parameters
    shared = {"betas": (options.beta1, options.beta2), "weight_decay": options.weight_decay}
    arguments: JSON = {key: value for key, value in shared.items() if key in takes}
    arguments |= {"lr": options.learning_rate, **fixed}
    for fields, key in ((("beta1", "beta2"), "betas"), (("weight_decay",), "weight_decay")):
        unused = [f"optimizer.{field}" for field in fields if key not in takes and options.given(field)]
        check(not unused, f"{' and '.join(unused)} is given, but torch.optim.{name} has no {key}; leave it out")
    for key in options.options:
        if key not in takes or key in ("params", *arguments):
            raise ConfigError(
                f"optimizer.options has {key!r}, which torch.optim.{name} does not take or the recipe says elsewhere; "
                f"{nearest(key, set(takes) - {'params', *arguments})}"
            )
    try:
        return classes[name]([*parameters], **arguments, **options.options)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(f"optimizer {options.name!r} cannot be made: {str(error).splitlines()[0]}") from None


def moments_of(options: OptimizerOptions, dimensions: int) -> Mapping[str, object]:
    """What such an optimiser keeps for a small parameter of so many dimensions."""
    parameter = nn.Parameter(torch.zeros((2,) * dimensions))
    optimizer = make_optimizer([parameter], options)
    parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    found: Mapping[str, object] = optimizer.state[parameter]
    return found


def make_learning_rate(recipe: Recipe, optimizer: torch.optim.Optimizer, num_processes: int) -> Callable[[int], float]:
    """The learning rate as a pure function of the step, which needs no state in checkpoints.

    Raises:
        ConfigError: If there is no such schedule.
    """
    factor = make_factor(recipe.optimizer, recipe.max_train_steps, optimizer)
    images = recipe.train_batch_size * recipe.gradient_accumulation_steps * num_processes
    base = recipe.optimizer.learning_rate * (images if recipe.optimizer.scale_lr else 1)
    return lambda step: base * factor(step)
