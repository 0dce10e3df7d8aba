"""The device of a command, and the precision in which it computes there."""

from __future__ import annotations

import torch

from latentdiff.bulk import processes
from latentdiff.errors import InputError
from latentdiff.pipelines.precision import AUTO, best_dtype


def find_device(name: str | None) -> torch.device:
    """The named device, by default an accelerator if there is one; InputError unless it works."""
    if name is None:
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        if accelerator is None:
            return torch.device("cpu")
        return torch.device(accelerator.type, processes.local_rank() % torch.accelerator.device_count())
    try:
        device = torch.device(name)
        torch.empty(0, device=device).cpu()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"device {name!r} cannot be used ({reason}); choose another, or leave it out") from None
    return device


def dtype_name(dtype: str, device: str | None) -> str:
    """The precision that --dtype names, or that it means on the device that --device names if it is "auto"."""
    if dtype != AUTO:
        return dtype
    return str(best_dtype(find_device(device))).removeprefix("torch.")
