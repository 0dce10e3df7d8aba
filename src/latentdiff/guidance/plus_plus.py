"""CFG++, classifier-free guidance that stays on the data manifold (Chung et al. 2024, arXiv 2406.08070)."""

from __future__ import annotations

from torch import Tensor

from latentdiff.errors import InputError
from latentdiff.guidance.two_predictions import two_predictions
from latentdiff.sampling import Predictor, SamplingContext
from latentdiff.schedulers.ddim import DDIMScheduler


class CFGPlusPlus:
    """Changes classifier-free guidance, right behind which it stands in a list, into CFG++ (algorithm 2 of the paper).

    The estimate of the clean latents is guided, x0_u + scale (x0_c - x0_u), and the step goes along the unconditional
    noise. So the scale, which is that of classifier-free guidance, lies between 0 and 1. Only DDIM steps from an
    estimate along another noise, at any eta.
    """

    def __call__(self, predictor: Predictor, context: SamplingContext) -> Predictor:
        """Guide a predictor, and the estimates of the run's steps.

        Raises:
            InputError: If it isn't the predictor of classifier-free guidance, its scale isn't in [0, 1], it is
                rescaled, or the solver is another.
        """
        found, solver = two_predictions(predictor, "CFG++"), context.scheduler
        if not isinstance(solver, DDIMScheduler):
            raise InputError(
                f"CFG++ steps from one estimate along another noise, which {type(solver).__name__} can't; use 'ddim'"
            )
        check_scale(found.scale())
        if found.rescale:
            raise InputError("guidance_rescale has no meaning for CFG++, which needs no correction; leave it out")
        parametrization = context.parametrization
        change: Tensor | None = None

        def predict(latents: Tensor, timestep: Tensor, fraction: float) -> Tensor:
            nonlocal change
            if not found.acts(fraction):
                change = None
                return found.strong(latents, timestep, fraction)
            weak, strong = found.both(latents, timestep, fraction)
            unconditional, conditional = (
                parametrization.x0(latents.float(), p.detach().float(), timestep) for p in (weak, strong)
            )
            change = check_scale(found.scale()) * (conditional - unconditional).detach()
            return weak

        context.replace_x0.append(lambda x0: x0 if change is None else x0 + change)
        return predict


def check_scale(scale: float) -> float:
    """Return the scale of CFG++; InputError unless it is in [0, 1]."""
    if not 0 <= scale <= 1:
        raise InputError(f"guidance_scale is {scale:g}; CFG++ takes 0 to 1, such as 0.6")
    return scale
