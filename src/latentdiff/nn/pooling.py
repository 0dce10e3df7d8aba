"""Pooling a feature map to one vector."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from latentdiff.nn.attention import attend, merge_heads, split_heads
from latentdiff.nn.layers import zero_init


class AttentionPool(nn.Module):
    """Attention pooling of CLIP's ResNets (Radford et al. 2021): the mean over all pixels attends to them and itself.

    Args:
        channels: Channels of the feature map.
        pixels: Number of its pixels, H * W; each has a learned position embedding.
        heads: Number of attention heads.
        out_features: Length of the result.
    """

    def __init__(self, channels: int, pixels: int, heads: int, out_features: int) -> None:
        super().__init__()
        self.heads = heads
        self.positional_embedding = nn.Parameter(torch.randn(channels, pixels + 1) / channels**0.5)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.to_out = nn.Linear(channels, out_features)

    def forward(self, hidden: Tensor) -> Tensor:
        """Map (B, channels, H, W) to (B, out_features)."""
        tokens = hidden.flatten(2)
        tokens = torch.cat([tokens.mean(dim=2, keepdim=True), tokens], dim=2) + self.positional_embedding
        query, key, value = (split_heads(part, self.heads) for part in self.qkv(tokens.mT).chunk(3, dim=2))
        out: Tensor = self.to_out(merge_heads(attend(query[:, :, :1], key, value))[:, 0])
        return out


class MeanPool(nn.Module):
    """Mean pooling, then a linear map (a 1x1 convolution); takes any height and width.

    Args:
        channels: Channels of the feature map.
        out_features: Length of the result.
    """

    def __init__(self, channels: int, out_features: int) -> None:
        super().__init__()
        self.conv = zero_init(nn.Conv2d(channels, out_features, 1))

    def forward(self, hidden: Tensor) -> Tensor:
        """Map (B, channels, H, W) to (B, out_features)."""
        out: Tensor = self.conv(hidden.mean(dim=(2, 3), keepdim=True)).flatten(1)
        return out
