"""Classifier-free guidance with a strength for each of several conditions (Brooks et al. 2023, arXiv 2211.09800)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from latentdiff.conditioning import Conditioning
from latentdiff.errors import InputError
from latentdiff.guidance.common import Interval, check_interval, check_rescale, finite_number
from latentdiff.guidance.two_predictions import rescaled
from latentdiff.sampling import Predictor, SamplingContext


@dataclass(frozen=True, eq=False)
class GuidanceOfSeveral:
    """e_0 + s_1 (e_1 - e_0) + ... + s_n (e_n - e_n-1), in one pass (eq. 3 of the paper, for any number).

    The prediction e_i knows the first i of the guided conditions, and e_n is that of the network with all of them. With
    one condition this is classifier-free guidance, and with equal strengths that away from all of them at once.

    Args:
        weaker: The conditionings of e_0 to e_n-1, each with as many rows as there are images.
        scales: The strengths s_1 to s_n.
        interval: Part of the steps, as fractions from 0 (first) to 1 (last), in which guidance acts.
        rescale: Share, in [0, 1], of the correction that gives the result the standard deviation of e_n.

    Raises:
        InputError: If a strength, the interval or the rescaling isn't valid, or there aren't as many strengths as
            conditionings.
    """

    weaker: Sequence[Conditioning]
    scales: Sequence[float]
    interval: Interval = (0.0, 1.0)
    rescale: float = 0.0

    def __post_init__(self) -> None:
        check_interval(self.interval), check_rescale(self.rescale)
        for scale in self.scales:
            finite_number("guidance_scale", scale)
        if not self.weaker or len(self.weaker) != len(self.scales):
            raise InputError(f"{len(self.scales)} scales are given for {len(self.weaker)} conditionings; give one each")

    def __call__(self, predictor: Predictor, context: SamplingContext) -> Predictor:
        """Guide the network's own prediction.

        Raises:
            InputError: If the predictor is guided already, or the conditionings have other numbers of rows.
        """
        denoiser = context.denoiser
        if predictor is not denoiser:
            raise InputError("guidance of several conditions stands behind another guidance; put it first in the list")
        rows, needed = {part.batch_size for part in self.weaker}, denoiser.conditioning.batch_size
        if rows != {needed}:
            raise InputError(f"weaker conditionings have {sorted(map(str, rows))} rows, the conditioning {needed}")
        count, (low, high) = len(self.scales) + 1, self.interval
        together = denoiser.with_network(denoiser.unet, Conditioning.cat([*self.weaker, denoiser.conditioning]), count)

        def guided(latents: Tensor, timestep: Tensor, fraction: float) -> Tensor:
            if not low <= fraction < high:
                return denoiser(latents, timestep, fraction)
            predictions = together(latents, timestep, fraction).chunk(count)
            result = predictions[0]
            for scale, weak, strong in zip(self.scales, predictions, predictions[1:], strict=False):
                result = result + scale * (strong - weak)
            return rescaled(result, predictions[-1], self.rescale) if self.rescale else result

        return guided
