"""Exponential moving average of weights, with the original code's warm-up."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from latentdiff.compat import lerp_all_
from latentdiff.training.engine.sharding import sharded_like


class EMA:
    """Shadow weights s <- s - (1 - d_n) (s - p), with d_n = min(decay, (1 + n) / (10 + n)) at the n-th update.

    Args:
        module: Its trainable parameters are followed, in fp32.
        decay: Upper bound of the decay, in (0, 1).
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay, self.num_updates = decay, 0
        self._live = {name: p for name, p in module.named_parameters() if p.requires_grad}
        self.shadow = {name: p.detach().float().clone() for name, p in self._live.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Follow the parameters after an optimiser step."""
        self.num_updates += 1
        decay = min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        live = [p if p.dtype == torch.float32 else p.float() for p in self._live.values()]
        lerp_all_(list(self.shadow.values()), live, 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside the block the module holds the shadow weights."""
        kept = {name: p.detach().clone() for name, p in self._live.items()}
        self._copy(self.shadow)
        try:
            yield
        finally:
            self._copy(kept)

    @torch.no_grad()
    def _copy(self, weights: dict[str, torch.Tensor]) -> None:
        for name, parameter in self._live.items():
            parameter.copy_(weights[name])

    @torch.no_grad()
    def load(self, shadow: dict[str, torch.Tensor], num_updates: int) -> None:
        """Take over the state of a checkpoint."""
        self.num_updates = num_updates
        for name, tensor in self.shadow.items():
            tensor.copy_(sharded_like(shadow[name], tensor))
