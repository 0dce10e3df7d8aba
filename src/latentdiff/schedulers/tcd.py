"""TCD, strategic stochastic sampling of trajectory consistency models (Zheng et al. 2024, arXiv 2402.19159)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import ClassVar

import numpy as np
from diffusers.configuration_utils import register_to_config
from torch import Tensor

from latentdiff.errors import ConfigError
from latentdiff.models.stock_options import with_stock_options
from latentdiff.schedulers.base import Row, SchedulerOutput
from latentdiff.schedulers.lcm import LCMScheduler
from latentdiff.schedulers.linear_combination import NOISE
from latentdiff.seeding import Generators


class TCDScheduler(LCMScheduler):
    """Sampler of trajectory consistency models: go down to a level below the next timestep, and up to that with noise.

    At eta 0 no noise is added, and a run is DDIM's over the timesteps of the distillation. The last step lands on
    noise-free images; that of diffusers' on the level of timestep 0.

    Args:
        num_train_timesteps: Number of training timesteps T.
        beta_start: First beta.
        beta_end: Last beta.
        beta_schedule: A name in `noise_schedule.BETA_SCHEDULES`.
        trained_betas: The betas themselves, (T,), instead of the three above.
        original_inference_steps: Number of solver steps that the model was distilled with; a run visits some of them.
        prediction_type: "epsilon", "v_prediction", "sample" or "flow_prediction".
        rescale_betas_zero_snr: True to make the last training level pure noise.
    """

    counterpart = "TCDScheduler"
    has_eta: ClassVar[bool] = True

    @with_stock_options
    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        num_train_timesteps: int = 1000,
        beta_start: float = 0.00085,
        beta_end: float = 0.012,
        beta_schedule: str = "scaled_linear",
        trained_betas: Sequence[float] | None = None,
        *,
        original_inference_steps: int = 50,
        prediction_type: str = "epsilon",
        rescale_betas_zero_snr: bool = False,
    ) -> None:
        self._take_original(original_inference_steps)
        self._setup()

    def step(  # type: ignore[override]  # the order of diffusers' TCD
        self,
        model_output: Tensor,
        timestep: float | Tensor,
        sample: Tensor,
        eta: float = 0.0,
        generator: Generators = None,
        *,
        variance_noise: Tensor | None = None,
        temperature: float = 1.0,
        replace_x0: Callable[[Tensor], Tensor] | None = None,
        return_dict: bool = True,
    ) -> SchedulerOutput | tuple[Tensor, Tensor]:
        """Go from `timestep` to the next, with options in the order of diffusers' TCD.

        Args:
            model_output: The model's prediction (B, C, H, W) for the sample.
            timestep: The element of `timesteps` that the prediction was made for.
            sample: The current sample (B, C, H, W).
            eta: The paper's gamma, in [0, 1]: the share of the next timestep by which a step goes below it. The paper
                takes 0.2 to 0.3, which is diffusers' default; here it is that of all solvers.
            generator: Source of the noise, or one per image.
            variance_noise: The noise (B, C, H, W) itself, in place of a generator.
            temperature: A factor on the noise.
            replace_x0: Not offered by this solver.
            return_dict: Whether to return a `SchedulerOutput`, or the tuple (prev_sample, pred_original_sample).

        Raises:
            ConfigError: If the timestep is not in this run, or eta is not valid.
        """
        return super().step(
            model_output,
            timestep,
            sample,
            generator,
            eta=eta,
            variance_noise=variance_noise,
            temperature=temperature,
            replace_x0=replace_x0,
            return_dict=return_dict,
        )

    def _row(self, call: int, history: int, eta: float) -> Row:
        """Algorithm 1 of the paper, with the trajectory function of first order (eq. 15)."""
        if not 0 <= eta <= 1:
            raise ConfigError(f"eta is {eta}; choose 0 to 1")
        x0, noise = self._predict(call)
        alpha, sigma = self.grid.alpha[call + 1], self.grid.sigma[call + 1]
        below = alpha, sigma
        if eta and call + 1 < len(self.grid.timesteps):
            time = (1 - eta) * self.grid.timesteps[call + 1]
            (level,) = self.schedule.alpha_bar_at(np.array([math.floor(time) if self.schedule.whole else time]))
            below = math.sqrt(level), math.sqrt(1 - level)
        up = alpha / below[0]
        fresh = math.sqrt(max(sigma**2 - (up * below[1]) ** 2, 0.0))
        return {"prev": alpha * x0 + up * below[1] * noise + fresh * NOISE, "x0": x0}
