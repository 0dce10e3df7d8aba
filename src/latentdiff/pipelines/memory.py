"""An estimate of the memory that an image takes, before any is taken."""

from __future__ import annotations

from typing import Any

import psutil
import torch

from latentdiff.errors import TooLargeError
from latentdiff.windows import Windows

# Maps of a network's finest level that would fill its peak memory: measured with networks of one and two layers a
# level, whose peaks were 16 to 22 and 9 such maps (`python benchmarks/tasks.py --sizes 512` shows the second).
UNET_MAPS, DECODER_MAPS = 16, 9


def estimate(pipe: Any, height: int, width: int, windows: Windows | None = None) -> int:
    """Bytes that one image of this size needs beside the weights: the larger of denoising and decoding.

    Args:
        pipe: The pipeline.
        height: In pixels.
        width: In pixels.
        windows: In latent pixels.
    """
    factor = pipe.vae_scale_factor
    rows, columns = height // factor, width // factor
    seen = min(rows, windows.size) * min(columns, windows.size) if windows else rows * columns
    unet = UNET_MAPS * pipe.unet.config.block_out_channels[0] * seen * pipe.unet.dtype.itemsize
    decoder = DECODER_MAPS * pipe.vae.config.block_out_channels[0] * seen * factor**2 * pipe.vae.dtype.itemsize
    image = 3 * 3 * 4 * height * width  # float32, with copies on the way to the output
    return int(max(unet, decoder) + image)


def available(device: torch.device) -> int | None:
    """Free bytes of a device; None where it can't be asked."""
    if device.type == "cpu":
        return int(psutil.virtual_memory().available)
    return int(torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else None


def check(pipe: Any, height: int, width: int, windows: Windows | None) -> None:
    """TooLargeError if one image of this size certainly doesn't fit into the memory."""
    needed, free = estimate(pipe, height, width, windows), available(pipe.unet.device)
    if free is not None and needed > free:
        hint = "make it smaller" if windows else "make it smaller or give windows, such as windows=512"
        size, needs, has = f"{width}x{height}", f"{needed / 2**30:.1f} GiB", f"{free / 2**30:.1f} GiB"
        raise TooLargeError(f"an image of {size} needs about {needs}, {has} are free; {hint}")
