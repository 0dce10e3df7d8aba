"""Moving averages of weights: an exponential one, with the original code's warm-up, and power functions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from latentdiff.compat import lerp_all_
from latentdiff.training.engine.ema_profiles import kept
from latentdiff.training.engine.sharding import sharded_like

PROFILE = "@"
"""What stands between a parameter's name and the width of a profile; no name has it."""


class EMA:
    """Shadow weights s <- s - (1 - d_n) (s - p), with d_n = min(decay, (1 + n) / (10 + n)) at the n-th update.

    Args:
        module: Its trainable parameters are followed, in fp32.
        decay: Upper bound of the decay, in (0, 1).
        profiles: Widths of power-function averages that are followed beside it; see `ema_profiles`.

    Attributes:
        shadow: The averaged weights by the parameters' names, and those of each profile by NAME@WIDTH.
    """

    def __init__(self, module: nn.Module, decay: float, profiles: Sequence[float] = ()) -> None:
        self.decay, self.profiles, self.num_updates = decay, tuple(profiles), 0
        self._live = {name: p for name, p in module.named_parameters() if p.requires_grad}
        names = [*self._live, *(f"{name}{PROFILE}{width}" for width in self.profiles for name in self._live)]
        self.shadow = {name: self._live[name.partition(PROFILE)[0]].detach().float().clone() for name in names}

    @torch.no_grad()
    def update(self) -> None:
        """Follow the parameters after an optimiser step."""
        self.num_updates += 1
        decay = min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        live = [p if p.dtype == torch.float32 else p.float() for p in self._live.values()]
        shadows, count = list(self.shadow.values()), len(live)
        lerp_all_(shadows[:count], live, 1 - decay)
        for place, width in enumerate(self.profiles, start=1):
            profile = shadows[place * count : (place + 1) * count]
            lerp_all_(profile, live, 1 - kept(width, self.num_updates))

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
