"""A device that has no float64, such as MPS: the meta device, on which no tensor can be read either."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode

DEVICE = torch.device("meta")


class NoFloat64(TorchDispatchMode):
    """Inside the block an operation that makes a float64 tensor on the meta device is an error, as it is on MPS."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for value in made if isinstance(made, (tuple, list)) else [made]:
            if isinstance(value, torch.Tensor) and value.device == DEVICE and value.dtype == torch.float64:
                raise TypeError(f"{func} makes a float64 tensor")
        return made
