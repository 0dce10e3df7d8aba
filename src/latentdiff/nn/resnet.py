"""The residual block."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from latentdiff.nn.context import PreparedTimestep, RowOfMany, TimeEmbedding, repeat_batch
from latentdiff.nn.layers import zero_init

Direction = Literal["down", "up"]


def halve(hidden: Tensor) -> Tensor:
    """Average pooling over 2x2 pixels: (B, C, H, W) to (B, C, H/2, W/2)."""
    return F.avg_pool2d(hidden, 2)


def double(hidden: Tensor) -> Tensor:
    """Nearest-neighbour doubling: (B, C, H, W) to (B, C, 2H, 2W)."""
    return F.interpolate(hidden, scale_factor=2.0, mode="nearest")


RESIZE: dict[Direction, Callable[[Tensor], Tensor]] = {"down": halve, "up": double}


class ResnetBlock(nn.Module):
    """Twice norm, SiLU and convolution, with the time embedding added between the two, and a residual connection.

    The norms are GroupNorm with epsilon 1e-5; torch computes their statistics in float32 whatever the dtype. The last
    convolution starts at zero, so a new block is the identity (up to its 1x1 shortcut).

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output; a 1x1 shortcut convolution is added where they differ.
        temb_channels: Width of the time embedding.
        groups: Groups of the norms.
        dropout: Dropout probability before the last convolution.
        scale_shift: Whether the time embedding scales and shifts the second norm's output instead of being added
            before that norm.
        resize: "down" halves and "up" doubles height and width between the first SiLU and convolution.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        temb_channels: int,
        groups: int = 32,
        dropout: float = 0.0,
        scale_shift: bool = False,
        resize: Direction | None = None,
    ) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, in_channels, eps=1e-5)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.time_emb_proj = nn.Linear(temb_channels, out_channels * (2 if scale_shift else 1))
        self.norm2 = nn.GroupNorm(groups, out_channels, eps=1e-5)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = zero_init(nn.Conv2d(out_channels, out_channels, 3, padding=1))
        self.conv_shortcut = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else None
        self.scale_shift = scale_shift
        self.resize = resize
        self.index = 0  # this block's place in a PreparedTimestep, set by the network

    def forward(self, hidden: Tensor, temb: TimeEmbedding) -> Tensor:
        """Apply the block.

        Args:
            hidden: Features (B, in_channels, H, W).
            temb: Time embedding after its SiLU, (1, temb_channels) or n rows with B a multiple of n; or what the
                network has prepared of it.

        Returns:
            Features (B, out_channels, H', W'), where H' is H, H/2 or 2H, and W' likewise.
        """
        residual = hidden
        hidden = F.silu(self.norm1(hidden))
        if self.resize is not None:
            residual, hidden = RESIZE[self.resize](residual), RESIZE[self.resize](hidden)
        hidden = self.conv1(hidden)
        time = self._projected(temb)[:, :, None, None]
        if time.shape[0] != 1:
            time = repeat_batch(time, hidden.shape[0])
        if self.scale_shift:
            scale, shift = time.chunk(2, dim=1)
            hidden = self.norm2(hidden) * (1 + scale) + shift
        else:
            hidden = self.norm2(hidden + time)
        hidden = self.conv2(self.dropout(F.silu(hidden)))
        if self.conv_shortcut is not None:
            residual = self.conv_shortcut(residual)
        return residual + hidden

    def _projected(self, temb: TimeEmbedding) -> Tensor:
        """What this block takes of the time embedding, (n, out_channels or twice as many)."""
        if isinstance(temb, PreparedTimestep):
            return temb.projections[self.index]
        if isinstance(temb, RowOfMany):
            return temb.map(self.time_emb_proj).take()[None]
        time: Tensor = self.time_emb_proj(temb)
        return time
