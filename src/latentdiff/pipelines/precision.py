"""`dtype="auto"`: the data type in which a machine computes networks fastest without giving up their range."""

from __future__ import annotations

from collections.abc import Mapping

import torch

AUTO = "auto"
CPU_FLAGS = ("avx512_bf16", "amx_bf16")  # of CPUs that multiply in bfloat16; others emulate it, slower than float32


def best_dtype(device: torch.device | None = None) -> torch.dtype:
    """Choose bfloat16 where the device multiplies in it, else float32.

    float16 is never chosen: it overflows above 65504, as first stages do.

    Args:
        device: The device; by default an accelerator if there is one, else the CPU.
    """
    if device is None:
        device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    if device.type == "cpu":
        known: Mapping[str, object] = getattr(torch.cpu, "get_capabilities", dict)()  # of torch 2.11 and later
        found = any(known.get(flag) is True for flag in CPU_FLAGS)
    elif device.type == "cuda":
        found = torch.cuda.is_bf16_supported(including_emulation=False)
    elif device.type == "xpu":
        found = torch.xpu.is_bf16_supported(including_emulation=False)
    else:
        found = False  # nobody has measured it there
    return torch.bfloat16 if found else torch.float32
