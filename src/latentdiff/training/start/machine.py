"""The machine that trains, as far as the sizes in a recipe depend on it."""

from __future__ import annotations

from dataclasses import dataclass

import psutil
import torch

from latentdiff.pipelines.precision import has_bfloat16

GIB = 2**30


@dataclass(frozen=True)
class Machine:
    """What a run has.

    Attributes:
        device: The kind of device, such as "cuda" or "cpu".
        memory: Its memory in GiB.
        bfloat16: Whether it multiplies in bfloat16, rather than emulating it.
    """

    device: str
    memory: float
    bfloat16: bool

    @property
    def accelerator(self) -> bool:
        """Whether the device is another than the CPU."""
        return self.device != "cpu"

    @classmethod
    def here(cls) -> Machine:
        """This machine: its accelerator if there is one, else the CPU."""
        device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
        library = getattr(torch, device.type, None)
        if device.type not in ("cpu", "mps") and library is not None and hasattr(library, "mem_get_info"):
            memory = library.mem_get_info(device)[1]
        else:  # MPS computes in the memory of the CPU
            memory = psutil.virtual_memory().total
        return cls(device.type, memory / GIB, device.type != "mps" and has_bfloat16(device))
