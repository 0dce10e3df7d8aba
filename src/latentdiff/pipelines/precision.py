"""`dtype="auto"`: the data type in which a machine computes networks fastest without giving up their range."""

from __future__ import annotations

from collections.abc import Mapping

import torch

AUTO = "auto"
MEASURED = ("cpu", "cuda", "xpu")  # kinds of devices that "auto" may choose bfloat16 for
CPU_FLAGS = ("avx512_bf16", "amx_bf16")  # of CPUs that multiply in bfloat16; others emulate it, slower than float32


def best_dtype(device: torch.device | None = None) -> torch.dtype:
    """Choose bfloat16 where the device multiplies in it, else float32.

    float16 is never chosen: it overflows above 65504, as first stages do.

    Args:
        device: The device; by default an accelerator if there is one, else the CPU.
    """
    if device is None:
        device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    return torch.bfloat16 if device.type in MEASURED and has_bfloat16(device) else torch.float32


def has_bfloat16(device: torch.device) -> bool:
    """Whether a device multiplies in bfloat16. Others emulate it, which takes longer than float32.

    It is taken for granted of kinds of devices that torch can't ask.
    """
    if device.type == "cpu":
        known: Mapping[str, object] = getattr(torch.cpu, "get_capabilities", dict)()  # of torch 2.11 and later
        return any(known.get(flag) is True for flag in CPU_FLAGS)
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "xpu":
        return bool(torch.xpu.is_bf16_supported(including_emulation=False))
    return True
