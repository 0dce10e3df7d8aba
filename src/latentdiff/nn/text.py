"""A text transformer: pre-norm layers of self-attention and feed-forward, without an attention mask."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentdiff.nn.attention import attend, merge_heads, split_heads
from latentdiff.nn.blocks import CheckpointedBlock


class TextAttention(nn.Module):
    """Self-attention whose inner width, `heads * head_dim`, does not depend on the tokens' width."""

    def __init__(self, width: int, heads: int, head_dim: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(width, heads * head_dim, bias=False)
        self.k_proj = nn.Linear(width, heads * head_dim, bias=False)
        self.v_proj = nn.Linear(width, heads * head_dim, bias=False)
        self.out_proj = nn.Linear(heads * head_dim, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens (B, M, width) to the same shape."""
        query, key, value = (split_heads(to(tokens), self.heads) for to in (self.q_proj, self.k_proj, self.v_proj))
        out: Tensor = self.out_proj(merge_heads(attend(query, key, value)))
        return out


class TextLayer(nn.Module):
    """Self-attention and a GELU feed-forward of four times the width, each after a LayerNorm and added to its input."""

    def __init__(self, width: int, heads: int, head_dim: int) -> None:
        super().__init__()
        self.self_attn_layer_norm = nn.LayerNorm(width)
        self.self_attn = TextAttention(width, heads, head_dim)
        self.final_layer_norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens (B, M, width) to the same shape."""
        tokens = tokens + self.self_attn(self.self_attn_layer_norm(tokens))
        out: Tensor = tokens + self.fc2(F.gelu(self.fc1(self.final_layer_norm(tokens))))
        return out


class TextTransformer(CheckpointedBlock):
    """Token and position embeddings, layers and a final norm.

    Args:
        vocabulary: Number of token ids.
        positions: Length of the longest sequence.
        width: Channels of the tokens.
        layers: Number of layers.
        heads: Number of attention heads in every layer.
        head_dim: Width of a head.
    """

    def __init__(self, *, vocabulary: int, positions: int, width: int, layers: int, heads: int, head_dim: int) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(vocabulary, width)
        self.embed_positions = nn.Embedding(positions, width)
        self.layers = nn.ModuleList(TextLayer(width, heads, head_dim) for _ in range(layers))
        self.layer_norm = nn.LayerNorm(width)
        for embedding in (self.embed_tokens, self.embed_positions):
            nn.init.normal_(embedding.weight, std=0.02)

    def forward(self, ids: Tensor) -> Tensor:
        """Map token ids (B, M) to features (B, M, width)."""
        places = torch.arange(ids.shape[1], device=ids.device)
        tokens = self.embed_tokens(ids) + self.embed_positions(places)
        for layer in self.layers:
            tokens = self.run(layer, tokens)
        out: Tensor = self.layer_norm(tokens)
        return out
