"""EQ-VAE regularisation (Kouzelis et al. 2025, arXiv 2502.09509): scaled or turned latents decode to such images."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from latentdiff.training.first_stage.options import EquivarianceOptions

QUARTERS = 4


@dataclass(frozen=True)
class Move:
    """A scaling followed by a turn, which latents and images take alike.

    Attributes:
        size: Height and width in latent pixels to which they are scaled; None leaves them.
        turns: Quarters by which they are turned.
        factor: Pixels along the side of a latent pixel.
    """

    size: tuple[int, int] | None = None
    turns: int = 0
    factor: int = 1

    def latents(self, latents: Tensor) -> Tensor:
        """Moved latents, of (B, c, h, w)."""
        return self._moved(latents, 1)

    def images(self, images: Tensor) -> Tensor:
        """Moved images, of (B, C, H, W)."""
        return self._moved(images, self.factor)

    def _moved(self, grid: Tensor, pixels: int) -> Tensor:
        if self.size is not None:
            height, width = self.size
            size = (height * pixels, width * pixels)
            # In float32: torch has no antialiased resampling in float16 on CPUs.
            grid = F.interpolate(grid.float(), size, mode="bilinear", antialias=True).to(grid.dtype)
        return torch.rot90(grid, self.turns, (2, 3)) if self.turns else grid


STILL = Move()


class Equivariance:
    """Draws what latents and images are moved by.

    Args:
        options: Which moves there are, and how often.
        resolution: Side of the images in pixels.
        factor: Pixels along the side of a latent pixel.
        smallest: Least side in pixels of images that can be looked at.
    """

    def __init__(self, options: EquivarianceOptions, resolution: int, factor: int, smallest: int) -> None:
        self.options, self.side, self.factor = options, resolution // factor, factor
        least = max(math.ceil(smallest / factor), math.ceil(options.smallest_scale * self.side))
        self.smallest = min(self.side, least)

    def draw(self, rng: torch.Generator, share: float = 1.0) -> Move:
        """A move by draws of a CPU generator; `share` is a factor of its probability."""
        chance, height, width, quarters = torch.rand(4, generator=rng).tolist()
        if chance >= share * self.options.probability:
            return STILL
        sides = [self.smallest + int(drawn * (self.side + 1 - self.smallest)) for drawn in (height, width)]
        return Move((sides[0], sides[1]), int(QUARTERS * quarters) if self.options.turns else 0, self.factor)
