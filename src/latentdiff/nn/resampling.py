"""Halving and doubling of height and width, with a convolution."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class Downsample(nn.Module):
    """3x3 convolution of stride 2 with one pixel of zeros on every side: (B, C, H, W) to (B, C, H/2, W/2)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, hidden: Tensor, temb: Tensor | None = None) -> Tensor:
        """Halve height and width; `temb` is unused, so that both kinds of resampling are called alike."""
        out: Tensor = self.conv(hidden)
        return out


class Upsample(nn.Module):
    """Nearest-neighbour doubling, then a 3x3 convolution: (B, C, H, W) to (B, C, 2H, 2W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, hidden: Tensor, temb: Tensor | None = None) -> Tensor:
        """Double height and width; `temb` is unused, so that both kinds of resampling are called alike."""
        out: Tensor = self.conv(F.interpolate(hidden, scale_factor=2.0, mode="nearest"))
        return out
