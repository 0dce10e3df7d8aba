"""Where sampling starts: at noise, or at a noised image (SDEdit, Meng et al. 2022, arXiv 2108.01073)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from latentdiff.errors import InputError
from latentdiff.sampling import KnownRegion
from latentdiff.seeding import Generators
from latentdiff.types import Scheduler


@dataclass(frozen=True)
class StartPoint:
    """What a run starts from; without arguments, noise.

    Args:
        latents: The scaled latents (B, C, h, w) of an image; None for noise.
        strength: Share of the steps that are made, in (0, 1]; at 1 the run starts from noise alone.
        mask: A mask (B or 1, 1, h, w), 1 where the image is to be kept throughout; None if nothing is kept.
    """

    latents: torch.Tensor | None = None
    strength: float = 1.0
    mask: torch.Tensor | None = None

    def begin(self, scheduler: Scheduler, noise: torch.Tensor) -> InitialState:
        """Make the state before the first step, of standard normal `noise` (B, C, h, w).

        Raises:
            InputError: If so small a strength leaves no step.
        """
        clean = None if self.latents is None else self.latents.to(noise).expand_as(noise)
        if clean is None or self.strength == 1:
            _set_begin_index(scheduler, 0)
            return InitialState(0, noise * scheduler.init_noise_sigma, clean, self.mask)
        order = scheduler.order  # so many of `timesteps` are calls of the network in one step
        steps = len(scheduler.timesteps[::order])
        made = int(steps * self.strength + 1e-9)
        if made < 1:
            raise InputError(f"strength {self.strength} of {steps} steps is less than one step; raise one of them")
        first = (steps - made) * order
        _set_begin_index(scheduler, first)
        level = scheduler.timesteps[first].expand(len(noise))
        return InitialState(first, scheduler.add_noise(clean, noise, level), clean, self.mask)


def _set_begin_index(scheduler: Scheduler, first: int) -> None:
    """Tell a scheduler that can be told the number of its first step: by its timestep alone it may take another."""
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(first)


@dataclass(frozen=True)
class InitialState:
    """The state before the first step.

    Attributes:
        first: The number of the timestep to begin with.
        latents: The latents (B, C, h, w) at its level.
        clean: The scaled latents (B, C, h, w) of the image that the run starts from; None if it starts from noise.
        mask: A mask (B or 1, 1, h, w), 1 where the image is kept throughout; None if nothing is kept.
    """

    first: int
    latents: torch.Tensor
    clean: torch.Tensor | None
    mask: torch.Tensor | None

    def known(self, generators: Generators) -> KnownRegion | None:
        """The part that is kept, with the source of the noise that it gets before each step; None if there is none."""
        if self.clean is None or self.mask is None:
            return None
        return KnownRegion(self.clean, self.mask.to(self.latents), generators)
