"""Reading images with limits, and the way between pixels and tensors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from latentdiff.errors import InputError

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"})
MAX_PIXELS = 100_000_000


def load_image(path: str | Path) -> Image.Image:
    """Read an image as RGB, transparency laid on white.

    Raises:
        InputError: If the file can't be read as an image or has more than 100 megapixels.
    """
    try:
        with Image.open(path) as file:
            if file.width * file.height > MAX_PIXELS:
                raise InputError(f"{path} has {file.width}x{file.height} pixels; at most {MAX_PIXELS} are read")
            if "A" in file.getbands() or "transparency" in file.info:
                white = Image.new("RGBA", file.size, "white")
                return Image.alpha_composite(white, file.convert("RGBA")).convert("RGB")
            return file.convert("RGB")
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"{path} cannot be read as an image ({error}); replace the file") from None


def to_tensor(image: Image.Image, resolution: int) -> torch.Tensor:
    """The centre square of an RGB image, resized, as (3, resolution, resolution) in [-1, 1]."""
    if image.size != (resolution, resolution):
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        square = (left, top, left + side, top + side)
        image = image.resize((resolution, resolution), Image.Resampling.LANCZOS, box=square)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float().div_(127.5).sub_(1)
