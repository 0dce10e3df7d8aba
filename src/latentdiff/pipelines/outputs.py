"""From latents to what the user asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image

from latentdiff.errors import InputError
from latentdiff.registry import nearest

OUTPUT_TYPES = ("pil", "np", "pt", "latent")
PIXELS_AT_ONCE = 2**20  # decoding is done in parts of this many pixels, so its memory doesn't grow with the batch


def check_output_type(output_type: str) -> None:
    """InputError unless the name is known."""
    if output_type not in OUTPUT_TYPES:
        raise InputError(f"output_type is {output_type!r}; {nearest(output_type, OUTPUT_TYPES)}")


@torch.no_grad()
def decode(vae: Any, latents: torch.Tensor) -> torch.Tensor:
    """Images (B, 3, H, W) in [0, 1], fp32 on the CPU, of scaled latents (B, C, h, w)."""
    factor = 2 ** (len(vae.config.block_out_channels) - 1)
    at_once = max(1, PIXELS_AT_ONCE // (factor**2 * latents.shape[-1] * latents.shape[-2]))
    latents = latents.to(vae.dtype) / vae.config.scaling_factor + (getattr(vae.config, "shift_factor", None) or 0)
    parts = [
        vae.decode(part).sample.float().add_(1).div_(2).clamp_(0, 1).cpu() for part in torch.split(latents, at_once)
    ]
    return torch.cat(parts)


def convert(images: torch.Tensor, output_type: str) -> Any:
    """Images (B, 3, H, W) in [0, 1] as "pt" (as they are), "np" (B, H, W, 3) or a list of "pil" images."""
    if output_type == "pt":
        return images
    array = images.permute(0, 2, 3, 1).numpy()
    if output_type == "np":
        return array
    return [Image.fromarray(pixels) for pixels in np.round(array * 255).astype(np.uint8)]
