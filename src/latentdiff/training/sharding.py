"""Tensors of which each process may hold a part (FSDP), as whole ones and back."""

from __future__ import annotations

from typing import Any

import torch
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.utils._pytree import tree_map


def whole(tree: Any) -> Any:
    """A tree (dict, list) with its sharded tensors made whole; all processes have to call it."""
    return tree_map(lambda value: value.full_tensor() if isinstance(value, DTensor) else value, tree)


def sharded_like(value: Any, reference: torch.Tensor) -> Any:
    """A whole tensor sharded as `reference` is, if it is and has this shape; all processes have to call it."""
    if isinstance(reference, DTensor) and isinstance(value, torch.Tensor) and value.shape == reference.shape:
        return distribute_tensor(value.to(reference.device), reference.device_mesh, reference.placements)
    return value
