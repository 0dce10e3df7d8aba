"""Adaptive projected guidance, APG: strong guidance without oversaturation (Sadat et al. 2024, arXiv 2410.02416)."""

from __future__ import annotations

import torch
from torch import Tensor

from latentdiff.errors import InputError
from latentdiff.guidance.common import finite_number
from latentdiff.guidance.two_predictions import TwoPredictions, two_predictions
from latentdiff.sampling import Predictor, SamplingContext


class AdaptiveProjectedGuidance:
    """Changes what classifier-free guidance or autoguidance, right behind which it stands in a list, adds.

    Guidance adds (scale - 1) times the difference of two estimates of the clean latents. Of this update, a momentum is
    taken, its norm is limited, and its part along the strong estimate, which is what oversaturates, is scaled down.
    At `parallel` 1 and without momentum and limit it changes nothing.

    Args:
        parallel: What remains of the part along the strong estimate, in [0, 1]; eta in the paper.
        norm_threshold: The largest norm of an image's update, over all channels and latent pixels; None for no limit.
            The paper takes 2.5 to 15, by the model.
        momentum: The weight of the updates so far, in (-1, 1); below 0, as in the paper, it pushes away from them. 0
            for none.

    Raises:
        InputError: If an option is out of range.
    """

    def __init__(self, parallel: float = 0.0, norm_threshold: float | None = None, momentum: float = -0.5) -> None:
        self.parallel, self.momentum = finite_number("parallel", parallel), finite_number("momentum", momentum)
        self.norm_threshold = None if norm_threshold is None else finite_number("norm_threshold", norm_threshold)
        if not 0 <= self.parallel <= 1:
            raise InputError(f"parallel is {self.parallel}; it must be in [0, 1]")
        if self.norm_threshold is not None and self.norm_threshold <= 0:
            raise InputError(f"norm_threshold is {self.norm_threshold}; it must be above 0, or None for no limit")
        if not -1 < self.momentum < 1:
            raise InputError(f"momentum is {self.momentum}; it must be above -1 and below 1")

    def __call__(self, predictor: Predictor, context: SamplingContext) -> Predictor:
        """Guide a predictor. What the momentum remembers belongs to this run.

        Raises:
            InputError: If it isn't the predictor of classifier-free guidance or autoguidance.
        """
        found = two_predictions(predictor, "APG")
        parametrization = context.parametrization
        mean: Tensor | None = None

        def combine(latents: Tensor, timestep: Tensor, weak: Tensor, strong: Tensor, scale: float) -> Tensor:
            nonlocal mean
            estimate, weaker = (parametrization.x0(latents.float(), p.float(), timestep) for p in (strong, weak))
            update = estimate - weaker
            if self.momentum:
                update = update if mean is None else update + self.momentum * mean
                mean = update.detach()
            change = (scale - 1) * self._projected(update, estimate)
            alpha, sigma = parametrization.levels(timestep, latents)
            return parametrization.shift(strong, -alpha / sigma * change, timestep)

        return TwoPredictions(found.both, found.strong, found.scale, found.interval, combine, found.rescale)

    def _projected(self, update: Tensor, estimate: Tensor) -> Tensor:
        """The update (B, C, H, W), its norm limited and its part along the estimate scaled."""
        axes = tuple(range(1, update.ndim))
        if self.norm_threshold is not None:
            norm: Tensor = torch.linalg.vector_norm(update, dim=axes, keepdim=True)
            update = update * (self.norm_threshold / norm).clamp(max=1)
        length: Tensor = torch.linalg.vector_norm(estimate, dim=axes, keepdim=True)
        direction = estimate / length.clamp(min=torch.finfo(length.dtype).tiny)
        along = (update * direction).sum(dim=axes, keepdim=True) * direction
        return update - (1 - self.parallel) * along
