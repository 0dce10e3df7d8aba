"""Small layers that the blocks are built of: zero initialisation, timestep embedding, halving and doubling."""

from __future__ import annotations

import math
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Layer = TypeVar("Layer", nn.Conv2d, nn.Linear)


def zero_init(layer: Layer) -> Layer:
    """Set weight and bias to zero, so that a residual branch that ends in `layer` adds nothing at first; returns it."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def timestep_embedding(timestep: Tensor | float, width: int, device: torch.device) -> Tensor:
    """Cosines, then sines, of the timestep at `width / 2` frequencies (Ho et al. 2020, after Vaswani et al. 2017).

    Frequency i is 10000^(-2 i / width). A number or a 0-d tensor gives one row, which broadcasts over a batch. Nothing
    is read back from the device.

    Args:
        timestep: Timestep in [0, 1000), fractions allowed: a number, a 0-d tensor or a tensor (B,).
        width: Even width of the embedding.
        device: Device of the result.

    Returns:
        float32 tensor (1, width) or (B, width).
    """
    half = width // 2
    steps = torch.arange(half, dtype=torch.float32, device=device)
    frequencies = torch.exp(-math.log(10000) * steps / half)
    if isinstance(timestep, Tensor):
        timestep = timestep.float() if timestep.ndim == 0 else timestep.to(device).float()[:, None]
    angles = (timestep * frequencies).view(-1, half)
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class TimestepEmbedding(nn.Module):
    """Two-layer perceptron on the sinusoidal embedding: (B, in_channels) to (B, time_embed_dim)."""

    def __init__(self, in_channels: int, time_embed_dim: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(in_channels, time_embed_dim)
        self.linear_2 = nn.Linear(time_embed_dim, time_embed_dim)

    def forward(self, embedding: Tensor) -> Tensor:
        """Map (B, in_channels) to (B, time_embed_dim)."""
        hidden: Tensor = self.linear_2(F.silu(self.linear_1(embedding)))
        return hidden


class Downsample(nn.Module):
    """3x3 convolution of stride 2 with one pixel of zeros on every side: (B, C, H, W) to (B, C, H/2, W/2)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, hidden: Tensor, temb: object = None) -> Tensor:
        """Halve height and width; `temb` is unused and only there to match `ResnetBlock`, which may also resample."""
        out: Tensor = self.conv(hidden)
        return out


class Upsample(nn.Module):
    """Nearest-neighbour doubling, then a 3x3 convolution: (B, C, H, W) to (B, C, 2H, 2W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, hidden: Tensor, temb: object = None) -> Tensor:
        """Double height and width; `temb` is unused and only there to match `ResnetBlock`, which may also resample."""
        out: Tensor = self.conv(F.interpolate(hidden, scale_factor=2.0, mode="nearest"))
        return out
