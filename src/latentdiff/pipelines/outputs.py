"""From decoded images to what the user asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image

from latentdiff.errors import InputError
from latentdiff.registry import nearest

OUTPUT_TYPES = ("pil", "np", "pt", "latent")


def check_output_type(output_type: str) -> None:
    """InputError unless the name is known."""
    if output_type not in OUTPUT_TYPES:
        raise InputError(f"output_type is {output_type!r}; {nearest(output_type, OUTPUT_TYPES)}")


def check_channels(output_type: str, channels: int) -> None:
    """InputError if PIL has no 8-bit images of as many channels and is to give them."""
    if output_type == "pil" and channels not in (1, 3):
        raise InputError(f"images have {channels} channels, which PIL can't show; use output_type 'np' or 'pt'")


def convert(images: torch.Tensor, output_type: str) -> Any:
    """Images (B, C, H, W) in [0, 1] as "pt" (as they are), "np" (B, H, W, C) or a list of "pil" images.

    Raises:
        InputError: If PIL has no 8-bit images of as many channels.
    """
    if output_type == "pt":
        return images
    array = images.permute(0, 2, 3, 1).numpy()
    if output_type == "np":
        return array
    check_channels(output_type, array.shape[-1])
    return [Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels) for pixels in to_bytes(array)]


def to_bytes(array: Any) -> Any:
    """uint8 values of values in [0, 1], rounded to the nearest."""
    return np.round(array * 255).astype(np.uint8)
