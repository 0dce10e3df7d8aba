"""The spatial transformer, by which a context conditions the network (section 3.3 and appendix E.2.1 of the paper)."""

from __future__ import annotations

from collections import OrderedDict

import torch.nn.functional as F
from torch import Tensor, nn

from latentdiff.nn.attention import CrossAttention, SelfAttention
from latentdiff.nn.context import ContextCache, repeat_batch
from latentdiff.nn.layers import zero_init


class GEGLU(nn.Module):
    """Linear layer whose first half is multiplied by the exact GELU of its second (Shazeer 2020, arXiv 2002.05202)."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, 2 * out)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens (B, L, width) to (B, L, out)."""
        value, gate = self.proj(tokens).chunk(2, dim=-1)
        out: Tensor = value * F.gelu(gate)
        return out


class FeedForward(nn.Module):
    """GEGLU to four times the width, then a linear layer back to the width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.Sequential(OrderedDict({"0": GEGLU(width, 4 * width), "2": nn.Linear(4 * width, width)}))

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens (B, L, width) to the same shape."""
        out: Tensor = self.net(tokens)
        return out


class BasicTransformerBlock(nn.Module):
    """Self-attention, cross-attention and feed-forward, each after a LayerNorm and added to its input."""

    def __init__(self, width: int, context_dim: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn1 = SelfAttention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.attn2 = CrossAttention(width, context_dim, heads)
        self.norm3 = nn.LayerNorm(width)
        self.ff = FeedForward(width)

    def forward(self, tokens: Tensor, context: Tensor | ContextCache) -> Tensor:
        """Map tokens (B, L, width) to (n, L, width), where n is the batch size of `context`, a multiple of B."""
        batch = context.batch_size if isinstance(context, ContextCache) else context.shape[0]
        tokens = repeat_batch(tokens + self.attn1(self.norm1(tokens)), batch)
        tokens = tokens + self.attn2(self.norm2(tokens), context)
        out: Tensor = tokens + self.ff(self.norm3(tokens))
        return out


class SpatialTransformer(nn.Module):
    """Transformer blocks over the pixels of a feature map: norm, projection, blocks, projection, residual connection.

    Args:
        channels: Channels of the feature map, which are the transformer's width.
        context_dim: Channels of the context.
        heads: Number of heads.
        depth: Number of transformer blocks.
        groups: Groups of the norm, whose epsilon is 1e-6.
        linear_projection: Whether to project by linear layers instead of 1x1 convolutions, which is the same function
            with other weight shapes.
    """

    def __init__(
        self,
        channels: int,
        context_dim: int,
        heads: int,
        *,
        depth: int = 1,
        groups: int = 32,
        linear_projection: bool = False,
    ) -> None:
        super().__init__()
        self.linear_projection = linear_projection
        self.norm = nn.GroupNorm(groups, channels, eps=1e-6)
        if linear_projection:
            self.proj_in: nn.Module = nn.Linear(channels, channels)
            self.proj_out: nn.Module = zero_init(nn.Linear(channels, channels))
        else:
            self.proj_in = nn.Conv2d(channels, channels, 1)
            self.proj_out = zero_init(nn.Conv2d(channels, channels, 1))
        self.transformer_blocks = nn.ModuleList(
            BasicTransformerBlock(channels, context_dim, heads) for _ in range(depth)
        )

    def forward(self, hidden: Tensor, context: Tensor | ContextCache) -> Tensor:
        """Map (B, C, H, W) to (n, C, H, W), where n is the batch size of `context`, a multiple of B."""
        height = hidden.shape[2]
        tokens = self.norm(hidden)
        if self.linear_projection:
            tokens = self.proj_in(tokens.flatten(2).transpose(1, 2))
        else:
            tokens = self.proj_in(tokens).flatten(2).transpose(1, 2)
        for block in self.transformer_blocks:
            tokens = block(tokens, context)
        if self.linear_projection:
            out: Tensor = self.proj_out(tokens).transpose(1, 2).unflatten(2, (height, -1))
        else:
            out = self.proj_out(tokens.transpose(1, 2).unflatten(2, (height, -1)))
        return repeat_batch(hidden, out.shape[0]) + out
