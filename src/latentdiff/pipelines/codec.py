"""The way between images and latents, with either first stage, whole or in windows."""

from __future__ import annotations

import torch
from torch import Tensor

from latentdiff.types import FirstStage
from latentdiff.windows import Windows

PIXELS_AT_ONCE = 2**20  # work is done in parts of this many pixels, so its memory doesn't grow with the batch


def factor(vae: FirstStage) -> int:
    """Tell how many pixels lie along a latent's side: f in the paper."""
    return int(2 ** (len(vae.config.block_out_channels) - 1))


@torch.no_grad()
def encode(vae: FirstStage, images: Tensor, *, scaled: bool, windows: Windows | None = None) -> Tensor:
    """Encode images (B, c, H, W) in [-1, 1] to latents (B, C, h, w): a KL posterior's mode, or unquantised latents.

    Args:
        vae: First stage, KL or VQ.
        images: The images, on any device; the result is on the first stage's.
        scaled: Whether the latents are those that the diffusion model learns, or the first stage's own.
        windows: Overlapped windows, in latent pixels; None to encode images as a whole.
    """
    f = factor(vae)

    def one(part: Tensor) -> Tensor:
        # Images from arrays lie channels last, for which torch's group norm is less exact on CPUs.
        output = vae.encode(part.to(vae.device, vae.dtype).contiguous())
        latents: Tensor = output.latent_dist.mode() if hasattr(output, "latent_dist") else output.latents
        return latents

    if windows is not None and not windows.covers(*(side // f for side in images.shape[-2:])):
        parts = [windows.apply(one, image, zoom_in=f) for image in torch.split(images, 1)]
    else:
        parts = [one(part) for part in torch.split(images, _at_once(*images.shape[-2:]))]
    latents = torch.cat(parts)
    return (latents - _shift(vae)) * vae.config.scaling_factor if scaled else latents


@torch.no_grad()
def decode(vae: FirstStage, latents: Tensor, *, windows: Windows | None = None) -> Tensor:
    """Decode scaled latents (B, C, h, w) to images (B, c, H, W) in [0, 1], in fp32 on the CPU.

    Args:
        vae: First stage, KL or VQ.
        latents: The latents, on the first stage's device.
        windows: Overlapped windows, in latent pixels; None to decode images as a whole.
    """
    f = factor(vae)
    latents = latents.to(vae.dtype) / vae.config.scaling_factor + _shift(vae)

    def one(part: Tensor) -> Tensor:
        images: Tensor = vae.decode(part).sample.float()
        return images

    if windows is not None and not windows.covers(*latents.shape[-2:]):
        parts = [windows.apply(one, part, zoom_out=f, device=torch.device("cpu")) for part in torch.split(latents, 1)]
    else:
        at_once = _at_once(*(f * side for side in latents.shape[-2:]))
        parts = [one(part).cpu() for part in torch.split(latents, at_once)]
    return torch.cat(parts).add_(1).div_(2).clamp_(0, 1)


def _at_once(height: int, width: int) -> int:
    """Tell how many images of this size are worked on at once."""
    return max(1, PIXELS_AT_ONCE // (height * width))


def _shift(vae: FirstStage) -> float:
    """Tell what is subtracted from latents before they are scaled."""
    return getattr(vae.config, "shift_factor", None) or 0.0
