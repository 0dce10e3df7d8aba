"""TensorFlow 1's bilinear resizing, bit for bit."""

from __future__ import annotations

import torch
from torch import Tensor


def tf_resize(images: Tensor, height: int, width: int) -> Tensor:
    """Resize as `tf.image.resize_bilinear` of TensorFlow 1 does by default, by which FID's numbers were published.

    Row i of the result is taken at i * H / height, with no half-pixel offset and no antialiasing: rounding in float32
    is that of TensorFlow's kernel, which interpolates along x and then along y.

    Args:
        images: Images (B, C, H, W) of any real dtype.
        height: Height of the result.
        width: Width of the result.

    Returns:
        float32 (B, C, height, width), in the images' range.
    """
    images = images.float()
    top, bottom, down = _places(images.shape[2], height, images.device)
    left, right, along = _places(images.shape[3], width, images.device)
    rows = images[:, :, :, left] + (images[:, :, :, right] - images[:, :, :, left]) * along
    upper, lower = rows[:, :, top], rows[:, :, bottom]
    return upper + (lower - upper) * down[:, None]


def _places(size: int, wanted: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """The two neighbours of each place of the result, and how far it is from the first, in float32."""
    scale = torch.tensor(size, dtype=torch.float32) / torch.tensor(wanted, dtype=torch.float32)
    places = torch.arange(wanted, dtype=torch.float32) * scale
    first = places.floor().long()
    return first.to(device), (first + 1).clamp(max=size - 1).to(device), (places - first).to(device)
