"""Classifier-free guidance (Ho and Salimans 2022, arXiv 2207.12598)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from latentdiff.conditioning import Conditioning
from latentdiff.errors import InputError
from latentdiff.guidance.common import Interval, check_interval, check_rescale, finite_number
from latentdiff.guidance.two_predictions import TwoPredictions
from latentdiff.sampling import Predictor, SamplingContext


@dataclass(eq=False)
class ClassifierFreeGuidance:
    """e = e_u + scale (e_c - e_u), in one pass over the batch [unconditional, conditional].

    Args:
        unconditional: The conditioning that stands for no condition, with as many rows as there are images.
        scale: Strength; 1 gives the conditional prediction.
        interval: Part of the steps, as fractions from 0 (first) to 1 (last), in which guidance acts (Kynkaanniemi et
            al. 2024, arXiv 2404.07724); outside only the conditional prediction is computed.
        rescale: Share, in [0, 1], of the correction that gives the result the conditional prediction's standard
            deviation (Lin et al. 2023, arXiv 2305.08891, eq. 15 and 16).

    Raises:
        InputError: If scale, interval or rescale are no numbers, or out of range.
    """

    unconditional: Conditioning
    scale: float
    interval: Interval = (0.0, 1.0)
    rescale: float = 0.0

    def __post_init__(self) -> None:
        checked = {
            "scale": finite_number("guidance_scale", self.scale),
            "interval": check_interval(self.interval),
            "rescale": check_rescale(self.rescale),
        }
        vars(self).update(checked)  # the instance is frozen

    def __call__(self, predictor: Predictor, context: SamplingContext) -> Predictor:
        """Guide the network's own prediction.

        Raises:
            InputError: If the predictor is guided already, since both predictions come from the network itself, or if
                there aren't as many unconditional rows as conditional ones.
        """
        if predictor is not context.denoiser:
            raise InputError("classifier-free guidance stands behind another guidance; put it first in the list")
        denoiser = context.denoiser
        rows, needed = self.unconditional.batch_size, denoiser.conditioning.batch_size
        if rows != needed:
            raise InputError(f"unconditional has {rows} rows, the conditioning {needed}; give as many of both")
        together = denoiser.with_unconditional(self.unconditional)

        def both(latents: Tensor, timestep: Tensor, fraction: float) -> tuple[Tensor, Tensor]:
            unconditional, conditional = together(latents, timestep, fraction).chunk(2)
            return unconditional, conditional

        return TwoPredictions(both, denoiser, lambda: self.scale, self.interval, rescale=self.rescale)
