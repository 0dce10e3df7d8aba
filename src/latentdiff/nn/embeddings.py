"""How the network is told the timestep."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def timestep_embedding(timestep: Tensor | float, width: int, device: torch.device) -> Tensor:
    """Cosines, then sines, of the timestep at `width / 2` frequencies from 1 down to about 1/10000.

    A number or a 0-d tensor gives one row, which broadcasts over a batch. Nothing is read back from the device.

    Args:
        timestep: Timestep in [0, 1000), fractional allowed: a number, a 0-d tensor or a tensor (B,).
        width: Even width of the embedding.
        device: Where to compute.

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
