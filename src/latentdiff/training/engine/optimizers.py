"""Optimisers and learning rates by the recipe."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from latentdiff.config import check
from latentdiff.errors import ConfigError
from latentdiff.registry import nearest
from latentdiff.training.engine.schedules import make_factor
from latentdiff.training.recipes.stages import Recipe

SHORT: dict[str, tuple[str, dict[str, Any]]] = {"adamw": ("AdamW", {}), "adamw_fused": ("AdamW", {"fused": True})}
UNFIT = {"Optimizer", "LBFGS", "SparseAdam", "Muon"}  # they need a closure, sparse gradients or matrices alone


def make_optimizer(parameters: Iterable[nn.Parameter], recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimiser: "adamw", "adamw_fused", or a class of torch.optim with `optimizer_options`.

    Raises:
        ConfigError: If there is no such optimiser, or an option isn't for it.
    """
    classes: dict[str, Any] = {
        name: kind for name, kind in vars(torch.optim).items() if inspect.isclass(kind) and name not in UNFIT
    }
    name, fixed = SHORT.get(recipe.optimizer, (recipe.optimizer, {}))
    if name not in classes or name in UNFIT:
        known = [*SHORT, *sorted(classes.keys() - UNFIT)]
        raise ConfigError(f"optimizer is {recipe.optimizer!r}; {nearest(recipe.optimizer, known)}")
    takes = inspect.signature(classes[name]).parameters
    shared = {"betas": (recipe.adam_beta1, recipe.adam_beta2), "weight_decay": recipe.adam_weight_decay}
    options: dict[str, Any] = {key: value for key, value in shared.items() if key in takes}
    options |= {"lr": recipe.learning_rate, **fixed}
    for fields, key in ((("adam_beta1", "adam_beta2"), "betas"), (("adam_weight_decay",), "weight_decay")):
        unused = [field for field in fields if key not in takes and recipe.given(field)]
        check(not unused, f"{' and '.join(unused)} is given, but torch.optim.{name} has no {key}; leave it out")
    for key in recipe.optimizer_options:
        if key not in takes or key in ("params", *options):
            raise ConfigError(
                f"optimizer_options has {key!r}, which torch.optim.{name} does not take or the recipe says elsewhere; "
                f"{nearest(key, set(takes) - {'params', *options})}"
            )
    try:
        made: torch.optim.Optimizer = classes[name]([*parameters], **options, **recipe.optimizer_options)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(f"optimizer {recipe.optimizer!r} cannot be made: {str(error).splitlines()[0]}") from None
    return made


def make_learning_rate(recipe: Recipe, optimizer: torch.optim.Optimizer, num_processes: int) -> Callable[[int], float]:
    """The learning rate as a pure function of the step, which needs no state in checkpoints.

    Raises:
        ConfigError: If there is no such schedule.
    """
    factor = make_factor(recipe, optimizer)
    images = recipe.train_batch_size * recipe.gradient_accumulation_steps * num_processes
    base = recipe.learning_rate * (images if recipe.scale_lr else 1)
    return lambda step: base * factor(step)
