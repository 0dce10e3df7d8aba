"""Where sampling starts: at noise, or at a noised image (SDEdit, Meng et al. 2022, arXiv 2108.01073)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from latentdiff.errors import InputError
from latentdiff.sampling import KnownRegion
from latentdiff.seeding import Generators


@dataclass(frozen=True)
class StartPoint:
    """What a run starts from; without arguments, noise.

    Args:
        latents: An image's latents (B, C, h, w), scaled.
        strength: Share of the steps that are made, in (0, 1]; at 1 the run starts from noise alone.
        mask: (B or 1, 1, h, w), 1 where the image is to be kept throughout.
    """

    latents: torch.Tensor | None = None
    strength: float = 1.0
    mask: torch.Tensor | None = None

    def begin(self, scheduler: Any, noise: torch.Tensor) -> InitialState:
        """The state before the first step, for standard normal `noise` (B, C, h, w).

        Raises:
            InputError: If so small a strength leaves no step.
        """
        clean = None if self.latents is None else self.latents.to(noise).expand_as(noise)
        if clean is None or self.strength == 1:
            return InitialState(0, noise * scheduler.init_noise_sigma, clean, self.mask)
        order = scheduler.order  # of the network's calls in `timesteps`, which stand for one step
        steps = len(scheduler.timesteps[::order])
        made = int(steps * self.strength + 1e-9)
        if made < 1:
            raise InputError(f"strength {self.strength} of {steps} steps is less than one step; raise one of them")
        first = (steps - made) * order
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(first)
        level = scheduler.timesteps[first].expand(len(noise))
        return InitialState(first, scheduler.add_noise(clean, noise, level), clean, self.mask)


@dataclass(frozen=True)
class InitialState:
    """The state before the first step: which it is, its latents, and the image that is kept in a part, if any."""

    first: int
    latents: torch.Tensor
    clean: torch.Tensor | None
    mask: torch.Tensor | None

    def known(self, generators: Generators) -> KnownRegion | None:
        """The part that is kept."""
        if self.clean is None or self.mask is None:
            return None
        return KnownRegion(self.clean, self.mask.to(self.latents), generators)
