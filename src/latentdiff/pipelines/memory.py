"""An estimate of the memory that an image takes, before any is taken."""

from __future__ import annotations

import psutil
import torch

from latentdiff.errors import TooLargeError
from latentdiff.pipelines import codec
from latentdiff.types import DenoisingNetwork, FirstStage
from latentdiff.windows import Windows

# Maps of a network's finest level that would fill its peak memory: measured with networks of one and two layers a
# level, whose peaks were 16 to 22 and 9 such maps (`python -m benchmarks tasks --sizes 512` shows the second).
UNET_MAPS, DECODER_MAPS = 16, 9


def estimate(vae: FirstStage, unet: DenoisingNetwork, height: int, width: int, windows: Windows | None = None) -> int:
    """Estimate how many bytes one image needs beside the weights: the larger of denoising and decoding.

    Args:
        vae: First stage, KL or VQ.
        unet: The denoising network.
        height: Height of the image in pixels.
        width: Width of the image in pixels.
        windows: Overlapped windows, in latent pixels.
    """
    factor = codec.factor(vae)
    rows, columns = height // factor, width // factor
    seen = min(rows, windows.size) * min(columns, windows.size) if windows else rows * columns
    denoising = UNET_MAPS * unet.config.block_out_channels[0] * seen * unet.dtype.itemsize
    decoding = DECODER_MAPS * vae.config.block_out_channels[0] * seen * factor**2 * vae.dtype.itemsize
    image = 3 * 3 * 4 * height * width  # float32, with copies on the way to the output
    return int(max(denoising, decoding) + image)


def available(device: torch.device) -> int | None:
    """Ask for the free bytes of a device; None where it can't be asked."""
    if device.type in ("cpu", "mps"):  # MPS computes in the memory of the CPU
        return int(psutil.virtual_memory().available)
    library = getattr(torch, device.type, None)  # torch.cuda and torch.xpu can be asked
    if library is None or not hasattr(library, "mem_get_info"):
        return None
    kept = library.memory_reserved(device) - library.memory_allocated(device)  # torch's own, for reuse
    return int(library.mem_get_info(device)[0]) + int(kept)


def check_memory(vae: FirstStage, unet: DenoisingNetwork, height: int, width: int, windows: Windows | None) -> None:
    """Raise TooLargeError if one image of this size certainly doesn't fit into the memory."""
    needed, free = estimate(vae, unet, height, width, windows), available(unet.device)
    if free is not None and needed > free:
        hint = "make it smaller" if windows else "make it smaller or give windows, such as windows=512"
        size, needs, has = f"{width}x{height}", f"{needed / 2**30:.1f} GiB", f"{free / 2**30:.1f} GiB"
        raise TooLargeError(f"an image of {size} needs about {needs}, {has} are free; {hint}")
