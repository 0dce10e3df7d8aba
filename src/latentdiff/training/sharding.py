"""Models of which each process holds a part (FSDP): their tensors as whole ones, and back."""

from __future__ import annotations

from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import nn
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.utils._pytree import tree_map

from latentdiff.config import check
from latentdiff.training.run_options import Recipe


def check_sharding(accelerator: Accelerator, recipe: Recipe) -> None:
    """ConfigError for what a run doesn't do on the processes that accelerate was configured for."""
    kind = accelerator.distributed_type
    check(
        kind != DistributedType.DEEPSPEED,
        "accelerate is configured for DeepSpeed, which makes steps and checkpoints of its own; configure FSDP, which "
        "shards as much, or neither",
    )
    if kind == DistributedType.FSDP:
        check(accelerator.is_fsdp2, "accelerate is configured for FSDP version 1; set fsdp_version to 2")
        check(
            not recipe.validation_steps,
            f"validation_steps is {recipe.validation_steps}, but a sharded model can't be looked at while it trains; "
            "set it to 0",
        )


def full(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor, whole; all processes have to call it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def whole(tree: Any, kept: bool) -> Any:
    """A tree (dict, list) with its sharded tensors made whole, one by one, on the CPU; all processes have to call it.

    Args:
        tree: Other values in it stay as they are.
        kept: Whether this process needs them; it gets empty tensors else.
    """

    def make(value: Any) -> Any:
        if not isinstance(value, DTensor):
            return value
        found = value.full_tensor()
        return found.cpu() if kept else torch.empty(0)

    return tree_map(make, tree)


def sharded_like(value: Any, reference: torch.Tensor) -> Any:
    """A whole tensor sharded as `reference` is, if it is and has this shape; all processes have to call it."""
    if isinstance(reference, DTensor) and isinstance(value, torch.Tensor) and value.shape == reference.shape:
        return distribute_tensor(value.to(reference.device), reference.device_mesh, reference.placements)
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
