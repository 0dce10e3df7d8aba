"""Training of which each process holds a part: its tensors as whole ones, and back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar, cast

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor

from latentdiff.config import check
from latentdiff.training.engine import zero
from latentdiff.training.engine.options import Recipe
from latentdiff.training.engine.packaged import is_packaged
from latentdiff.types import JSON

Tree = TypeVar("Tree")


def check_sharding(accelerator: Accelerator, recipe: Recipe) -> None:
    """ConfigError for what a run doesn't do on the processes that accelerate was configured for."""
    check(
        accelerator.gradient_accumulation_steps == recipe.gradient_accumulation_steps,
        f"accelerate is configured for gradient_accumulation_steps {accelerator.gradient_accumulation_steps}, the "
        f"recipe says {recipe.gradient_accumulation_steps}; make them the same",
    )
    sharded = accelerator.distributed_type in (DistributedType.DEEPSPEED, DistributedType.FSDP)
    check(
        not (sharded and is_packaged(recipe.optimizer.name)),
        f"optimizer.name is {recipe.optimizer.name!r}, of another package, whose state is not put together of shards; "
        "give one of torch",
    )
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        zero.configure(accelerator, recipe)
    if accelerator.distributed_type == DistributedType.FSDP:
        check(accelerator.is_fsdp2, "accelerate is configured for FSDP version 1; set fsdp_version to 2")


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


@contextmanager
def gathered(module: nn.Module, accelerator: Accelerator) -> Iterator[None]:
    """Inside the block every process has all weights, by which one may use the module while the others wait.

    All processes have to enter it and leave it together. The weights are not to be changed in it.
    """
    parts: list[FSDPModule] = [part for part in module.modules() if isinstance(part, FSDPModule)]
    for part in parts:
        part.set_reshard_after_forward(False, recurse=False)
        part.unshard()
    try:
        yield
    finally:
        for part in parts:
            part.reshard()
            part.set_reshard_after_forward(bool(accelerator.state.fsdp_plugin.reshard_after_forward), recurse=False)


@contextmanager
def unsharded(module: nn.Module, kept: bool) -> Iterator[None]:
    """Inside the block the module has whole weights to be saved, where they are `kept`; it can't be called.

    All processes have to enter it.
    """
    shards = {name: weight for name, weight in module.named_parameters() if isinstance(weight, DTensor)}
    for name, weight in shards.items():
        found = weight.full_tensor()
        if kept:
            _put(module, name, nn.Parameter(found.detach().cpu(), weight.requires_grad))
    try:
        yield
    finally:
        for name, weight in shards.items():
            _put(module, name, weight)


def _put(module: nn.Module, name: str, weight: nn.Parameter) -> None:
    owner, _, own_name = name.rpartition(".")
    setattr(module.get_submodule(owner), own_name, weight)


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
