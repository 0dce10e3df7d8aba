"""What is computed once and reused at every denoising step: what cross-attention and residual blocks add."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


def repeat_batch(tensor: Tensor, batch: int) -> Tensor:
    """Repeat a batch (B, ...) to (batch, ...), a multiple of B: row i of the result is row i mod B of `tensor`."""
    if tensor.shape[0] == batch:
        return tensor
    return tensor.repeat(batch // tensor.shape[0], *[1] * (tensor.ndim - 1))


@dataclass(frozen=True)
class PreparedTimestep:
    """What every residual block of one network takes of one timestep; `prepare_timesteps` makes them for a whole run.

    It is valid until the network's weights (adapters included) change.

    Attributes:
        projections: One tensor (1, C) per residual block, in the network's order.
    """

    projections: tuple[Tensor, ...]


@dataclass(frozen=True)
class RowOfMany:
    """One row of a tensor (N, ...), of which functions are computed as a whole.

    A product of many rows sums in another order than that of one of them. So a network that can't prepare timesteps,
    since its weights are at hand in `forward` only, computes those of the whole run in each, and gives the same bits.
    """

    rows: Tensor
    number: int

    def map(self, function: Callable[[Tensor], Tensor]) -> RowOfMany:
        """The same row of what a function makes of all."""
        return RowOfMany(function(self.rows), self.number)

    def take(self) -> Tensor:
        """The row (...)."""
        return self.rows[self.number]


TimeEmbedding = Tensor | PreparedTimestep | RowOfMany


@dataclass(frozen=True)
class ContextCache:
    """Keys and values of every cross-attention layer of one network for one batch of contexts.

    It is valid until the network's weights (adapters included) change. Slicing it slices the batch, without a copy.

    Attributes:
        keys: One tensor (B, heads, M, head_dim) per cross-attention layer, in the network's order.
        values: Shaped like `keys`.
    """

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]

    @property
    def batch_size(self) -> int:
        """The number of contexts B."""
        return self.keys[0].shape[0]

    def map(self, function: Callable[[Tensor], Tensor]) -> ContextCache:
        """A cache with `function` applied to every key and value."""
        return ContextCache(tuple(map(function, self.keys)), tuple(map(function, self.values)))

    def __getitem__(self, rows: slice) -> ContextCache:
        return self.map(lambda tensor: tensor[rows])

    @staticmethod
    def cat(caches: Sequence[ContextCache]) -> ContextCache:
        """Concatenate caches of one network along the batch."""
        keys = zip(*(cache.keys for cache in caches), strict=True)
        values = zip(*(cache.values for cache in caches), strict=True)
        return ContextCache(tuple(torch.cat(layer) for layer in keys), tuple(torch.cat(layer) for layer in values))
