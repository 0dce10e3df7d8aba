"""Training of which each process holds a part: its tensors as whole ones, and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar, cast

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import nn
from torch.distributed.tensor import DTensor, distribute_tensor

from latentdiff.config import check
from latentdiff.training.engine import zero
from latentdiff.training.engine.options import Recipe
from latentdiff.types import JSON

Tree = TypeVar("Tree")


def check_sharding(accelerator: Accelerator, recipe: Recipe) -> None:
    """ConfigError for what a run doesn't do on the processes that accelerate was configured for."""
    check(
        accelerator.gradient_accumulation_steps == recipe.gradient_accumulation_steps,
        f"accelerate is configured for gradient_accumulation_steps {accelerator.gradient_accumulation_steps}, the "
        f"recipe says {recipe.gradient_accumulation_steps}; make them the same",
    )
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        zero.configure(accelerator, recipe)
    if accelerator.distributed_type == DistributedType.FSDP:
        check(accelerator.is_fsdp2, "accelerate is configured for FSDP version 1; set fsdp_version to 2")
        check(
            not recipe.validation.steps,
            f"validation.steps is {recipe.validation.steps}, but a sharded model can't be looked at while it trains; "
            "set it to 0",
        )
        steps = recipe.checkpoint.export_steps
        check(not steps, f"checkpoint.export_steps is {steps}, which a sharded model doesn't keep; leave it out")


def full(value: torch.Tensor | float, device: torch.device) -> torch.Tensor:
    """A tensor, whole, or a number as one; all processes have to call it."""
    return value.full_tensor() if isinstance(value, DTensor) else torch.as_tensor(value, device=device)


def whole(tree: Tree, kept: bool) -> Tree:
    """A tree (dict, list) with its sharded tensors made whole, one by one, on the CPU; all processes have to call it.

    Args:
        tree: The tree, in which other values stay as they are.
        kept: Whether this process needs the tensors; it gets empty ones else.
    """
    made: object = tree
    if isinstance(tree, dict):
        made = {name: whole(value, kept) for name, value in tree.items()}
    elif isinstance(tree, list):
        made = [whole(value, kept) for value in tree]
    elif isinstance(tree, DTensor):
        full_tensor = tree.full_tensor()  # all processes take part, whoever keeps it
        made = full_tensor.cpu() if kept else torch.empty(0)
    return cast(Tree, made)


def sharded_like(value: Tree, reference: torch.Tensor) -> Tree:
    """A whole tensor sharded as `reference` is, if it is and has this shape; all processes have to call it."""
    if isinstance(reference, DTensor) and isinstance(value, torch.Tensor) and value.shape == reference.shape:
        return distribute_tensor(value.to(reference.device), reference.device_mesh, reference.placements)  # type: ignore[return-value]
    return value


def local(tensor: torch.Tensor) -> torch.Tensor:
    """The part of a tensor that is here."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def unshard(module: nn.Module, kept: bool) -> None:
    """Give a module that is trained no more its whole weights, where they are `kept`; all processes have to call it."""
    for name, parameter in list(module.named_parameters()):
        if isinstance(parameter, DTensor):
            found = parameter.full_tensor()
            if kept:
                owner, _, own_name = name.rpartition(".")
                setattr(module.get_submodule(owner), own_name, nn.Parameter(found.detach().cpu()))


def whole_optimizer_state(
    accelerator: Accelerator, optimizer: torch.optim.Optimizer, parameters: Sequence[nn.Parameter], kept: bool
) -> JSON:
    """The `state_dict` of an optimiser, whole, where it is `kept`; all processes have to call it."""
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        return zero.gather_optimizer_state(optimizer, parameters, kept)
    return whole(optimizer.state_dict(), kept)


def load_optimizer_state(
    accelerator: Accelerator, optimizer: torch.optim.Optimizer, parameters: Sequence[nn.Parameter], saved: JSON
) -> None:
    """Go on with a whole `state_dict` of an optimiser, and with the weights that were loaded before."""
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        zero.scatter_optimizer_state(optimizer, parameters, saved)
        return
    for number, values in saved["state"].items():
        saved["state"][number] = {name: sharded_like(value, parameters[number]) for name, value in values.items()}
    optimizer.load_state_dict(saved)
