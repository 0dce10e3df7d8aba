"""Guidance that leads from a weak prediction past a strong one, and what can be changed in how it combines them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from latentdiff.errors import InputError
from latentdiff.guidance.common import Interval
from latentdiff.sampling import Predictor

Combine = Callable[[Tensor, Tensor, Tensor, Tensor, float], Tensor]
"""Makes one prediction of (latents, timestep, weak prediction, strong prediction, scale)."""


def extrapolate(latents: Tensor, timestep: Tensor, weak: Tensor, strong: Tensor, scale: float) -> Tensor:
    """weak + scale (strong - weak), which is linear, and so the same whatever the network predicts."""
    return torch.lerp(weak, strong, scale)


@dataclass(frozen=True, eq=False)
class TwoPredictions:
    """The predictor that classifier-free guidance and autoguidance return.

    The weak prediction is computed where it changes the result: within the interval, at a scale other than 1.

    Guidance that stands right behind one of them finds both predictions here, and may combine them in another way.

    Attributes:
        both: Gives the weak and the strong prediction, each (B, C, H, W).
        strong: Gives the strong prediction alone, outside of the interval.
        scale: Gives the present strength, which a callback may change; 1 is the strong prediction.
        interval: Part of the steps in which guidance acts, as fractions from 0 (first) to 1 (last).
        combine: How the two become one.
        rescale: Share, in [0, 1], of the correction that gives the result the strong prediction's standard deviation
            (Lin et al. 2023, arXiv 2305.08891, eq. 15 and 16).
    """

    both: Callable[[Tensor, Tensor, float], tuple[Tensor, Tensor]]
    strong: Predictor
    scale: Callable[[], float]
    interval: Interval
    combine: Combine = extrapolate
    rescale: float = 0.0

    def acts(self, fraction: float) -> bool:
        """Whether there is guidance when `fraction` of the steps are done."""
        low, high = self.interval
        return low <= fraction < high

    def __call__(self, latents: Tensor, timestep: Tensor, fraction: float) -> Tensor:
        """The guided prediction (B, C, H, W); see `Predictor`."""
        scale = self.scale()
        if not self.acts(fraction) or (scale == 1 and self.combine is extrapolate):
            return self.strong(latents, timestep, fraction)
        weak, strong = self.both(latents, timestep, fraction)
        guided = self.combine(latents, timestep, weak, strong, scale)
        return rescaled(guided, strong, self.rescale) if self.rescale else guided


def rescaled(guided: Tensor, strong: Tensor, rescale: float) -> Tensor:
    """Correct a share of what guidance does to the standard deviation (Lin et al. 2023, eq. 15 and 16).

    Args:
        guided: The guided prediction (B, C, H, W).
        strong: The prediction whose deviation it is given.
        rescale: The share, in [0, 1].
    """
    axes = tuple(range(1, guided.ndim))
    ratio = strong.std(dim=axes, keepdim=True) / guided.std(dim=axes, keepdim=True)
    return guided * (1 + rescale * (ratio - 1))


def two_predictions(predictor: Predictor, name: str) -> TwoPredictions:
    """The predictor, if it combines two predictions in the usual way; InputError, which calls the guidance `name`."""
    if not isinstance(predictor, TwoPredictions):
        raise InputError(
            f"{name} changes what classifier-free guidance or autoguidance does; put it right behind one of them in "
            "the list, or call with a guidance_scale"
        )
    if predictor.combine is not extrapolate:
        raise InputError(f"{name} stands behind another guidance of its kind; give one of them")
    return predictor
