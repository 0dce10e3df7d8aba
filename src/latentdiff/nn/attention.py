"""Self-attention and cross-attention, both computed by `scaled_dot_product_attention`."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentdiff.nn.context import ContextCache
from latentdiff.nn.layers import zero_init


def split_heads(tokens: Tensor, heads: int) -> Tensor:
    """Reshape tokens (B, L, heads * d) to (B, heads, L, d)."""
    return tokens.view(tokens.shape[0], tokens.shape[1], heads, -1).transpose(1, 2)


def merge_heads(tokens: Tensor) -> Tensor:
    """Reshape tokens (B, heads, L, d) to (B, L, heads * d)."""
    return tokens.transpose(1, 2).flatten(2)


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """`scaled_dot_product_attention` of queries (B, heads, L, d) to keys and values (B, heads, M, d).

    Training under autocast on a CPU, it is computed in float32: backward, the bfloat16 kernel takes twice as long.
    """
    if query.device.type == "cpu" and torch.is_autocast_enabled("cpu") and torch.is_grad_enabled():
        with torch.autocast("cpu", enabled=False):
            return F.scaled_dot_product_attention(query.float(), key.float(), value.float())
    return F.scaled_dot_product_attention(query, key, value)


class SelfAttention(nn.Module):
    """Multi-head attention of tokens (B, L, width) to each other.

    Args:
        width: Channels of the tokens; each head has `width / heads` of them.
        heads: Number of heads.
        bias: Whether the query, key and value projections have a bias.
    """

    def __init__(self, width: int, heads: int, *, bias: bool = False) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(width, width, bias=bias)
        self.to_k = nn.Linear(width, width, bias=bias)
        self.to_v = nn.Linear(width, width, bias=bias)
        self.to_out = nn.Sequential(nn.Linear(width, width))

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens (B, L, width) to the same shape."""
        query, key, value = (split_heads(to(tokens), self.heads) for to in (self.to_q, self.to_k, self.to_v))
        out: Tensor = self.to_out(merge_heads(attend(query, key, value)))
        return out


class CrossAttention(nn.Module):
    """Multi-head attention of tokens (B, L, width) to a context (B, M, context_dim) (section 3.3 of the paper).

    Args:
        width: Channels of the tokens.
        context_dim: Channels of the context.
        heads: Number of heads.
    """

    def __init__(self, width: int, context_dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.index = 0  # this layer's place in a ContextCache, set by the network
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_k = nn.Linear(context_dim, width, bias=False)
        self.to_v = nn.Linear(context_dim, width, bias=False)
        self.to_out = nn.Sequential(nn.Linear(width, width))

    def project(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (B, heads, M, width / heads) of a context (B, M, context_dim)."""
        return split_heads(self.to_k(context), self.heads), split_heads(self.to_v(context), self.heads)

    def forward(self, tokens: Tensor, context: Tensor | ContextCache) -> Tensor:
        """Map tokens (B, L, width) and a context to (B, L, width), or to (B, 1, width) for a context of one token.

        With one token the softmax is over one key, so its weight is 1 and every position gets the same value. While
        gradients are recorded the attention is computed in full, so that every parameter takes part in the backward
        pass.
        """
        if isinstance(context, ContextCache):
            key, value = context.keys[self.index], context.values[self.index]
        else:
            key, value = self.project(context)
        if key.shape[2] > 1 or torch.is_grad_enabled():
            value = attend(split_heads(self.to_q(tokens), self.heads), key, value)
        out: Tensor = self.to_out(merge_heads(value))
        return out


class SpatialSelfAttention(SelfAttention):
    """Self-attention over the pixels of a feature map, after a norm and with a residual connection.

    Args:
        channels: Channels of the feature map.
        heads: Number of heads.
        groups: Groups of the norm.
    """

    _from_deprecated_attn_block = True  # lets diffusers rename query, key, value, proj_attn of its first releases

    def __init__(self, channels: int, heads: int, *, groups: int = 32) -> None:
        super().__init__(channels, heads, bias=True)
        self.group_norm = nn.GroupNorm(groups, channels, eps=1e-5)
        self.to_out = nn.Sequential(zero_init(nn.Linear(channels, channels)))

    def forward(self, hidden: Tensor, context: Tensor | ContextCache | None = None) -> Tensor:
        """Map (B, C, H, W) to the same shape; `context` is unused and only there to match `SpatialTransformer`."""
        tokens = self.group_norm(hidden).flatten(2).transpose(1, 2)
        return hidden + super().forward(tokens).transpose(1, 2).reshape(hidden.shape)
