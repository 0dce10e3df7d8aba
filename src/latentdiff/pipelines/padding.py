"""Images of any size for networks that take multiples: they are padded before and cropped after."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Padding:
    """How an image of `height` and `width` is brought to multiples of `multiple`, at its right and bottom edge."""

    height: int
    width: int
    multiple: int

    @property
    def size(self) -> tuple[int, int]:
        """The padded height and width."""
        height, width = (-(-side // self.multiple) * self.multiple for side in (self.height, self.width))
        return height, width

    def pad(self, tensor: Tensor) -> Tensor:
        """Pad (B, C, height, width) to the padded size by repeating the pixels at the edge; the result is float."""
        height, width = self.size
        return F.pad(tensor.float(), (0, width - self.width, 0, height - self.height), mode="replicate")

    def crop(self, tensor: Tensor, scale: int = 1) -> Tensor:
        """Crop a padded tensor (B, C, scale * H, scale * W) to the image, made `scale` times larger."""
        return tensor[..., : scale * self.height, : scale * self.width]


@dataclass(frozen=True)
class Composite:
    """Puts what was made into the holes of images, and leaves every other pixel as it was.

    Args:
        images: The images (B, C, H, W) in [-1, 1].
        holes: Masks of bool (B, 1, H, W), True where an image is changed.
        padding: How the images were padded.
        count: How many results there are of each image, next to each other.
    """

    images: Tensor
    holes: Tensor
    padding: Padding
    count: int

    def __call__(self, made: Tensor) -> Tensor:
        """The composites (count * B, C, H, W) in [0, 1] of padded results."""
        known, hidden = (part.repeat_interleave(self.count, 0) for part in ((self.images + 1) / 2, self.holes))
        return torch.where(hidden, self.padding.crop(made), known)
