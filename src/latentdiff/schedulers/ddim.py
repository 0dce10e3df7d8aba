"""DDIM (Song et al. 2021, arXiv 2010.02502)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import ClassVar

from diffusers.configuration_utils import register_to_config
from torch import Tensor

from latentdiff.errors import ConfigError
from latentdiff.models.stock_options import with_stock_options
from latentdiff.schedulers.base import Row, SchedulerOutput, TableScheduler
from latentdiff.schedulers.linear_combination import NOISE
from latentdiff.seeding import Generators


class DDIMScheduler(TableScheduler):
    """First order. Deterministic at eta 0; ancestral sampling over any subset of the timesteps at eta 1.

    Each step goes to the next timestep of the run. (diffusers' goes down by T // steps instead, which is another
    timestep where the run is not evenly spaced, as with "linspace".)

    Args:
        num_train_timesteps: Number of training timesteps T.
        beta_start: First beta.
        beta_end: Last beta.
        beta_schedule: A name in `noise_schedule.BETA_SCHEDULES`.
        trained_betas: The betas themselves, (T,), instead of the three above.
        set_alpha_to_one: True to land on noise-free images; False, as the original code, on the level of timestep 0.
        steps_offset: Added to every timestep by "leading" spacing.
        prediction_type: "epsilon", "v_prediction", "sample" or "flow_prediction".
        timestep_spacing: "leading", "trailing", "linspace" or "original".
        rescale_betas_zero_snr: True to make the last training level pure noise.
        flow_shift: For a flow_prediction, moves the timesteps of a run towards the noise (above 1) or away from it.
    """

    counterpart = "DDIMScheduler"
    has_eta: ClassVar[bool] = True
    has_x0_weight: ClassVar[bool] = True

    @with_stock_options
    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        num_train_timesteps: int = 1000,
        beta_start: float = 0.0001,
        beta_end: float = 0.02,
        beta_schedule: str = "linear",
        trained_betas: Sequence[float] | None = None,
        *,
        set_alpha_to_one: bool = True,
        steps_offset: int = 0,
        prediction_type: str = "epsilon",
        timestep_spacing: str = "leading",
        rescale_betas_zero_snr: bool = False,
        flow_shift: float = 1.0,
    ) -> None:
        self._setup()

    def step(  # type: ignore[override]  # the order of diffusers' DDIM, which is not that of its other classes
        self,
        model_output: Tensor,
        timestep: float | Tensor,
        sample: Tensor,
        eta: float = 0.0,
        use_clipped_model_output: bool = False,
        generator: Generators = None,
        *,
        variance_noise: Tensor | None = None,
        temperature: float = 1.0,
        replace_x0: Callable[[Tensor], Tensor] | None = None,
        return_dict: bool = True,
    ) -> SchedulerOutput | tuple[Tensor, Tensor]:
        """Go from `timestep` to the next, with options in the order of diffusers' DDIM.

        Args:
            model_output: The model's prediction (B, C, H, W) for the sample.
            timestep: The element of `timesteps` that the prediction was made for.
            sample: The current sample (B, C, H, W).
            eta: Share of fresh noise, in [0, 1].
            use_clipped_model_output: Whether to use the noise of the clipped estimate of x0. Nothing is clipped here,
                so it is the same noise.
            generator: Source of the noise, or one per image.
            variance_noise: The noise (B, C, H, W) itself, in place of a generator.
            temperature: A factor on the noise, as in the original code.
            replace_x0: What makes of the estimate of x0 the one to go on with.
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

    def _final_alpha_bar(self) -> float:
        return 1.0 if self.config.set_alpha_to_one else float(self.schedule.alphas_cumprod[0])

    def _x0_weight(self, call: int) -> float:
        return self.grid.alpha[call + 1]

    def _row(self, call: int, history: int, eta: float) -> Row:
        """Eq. 12 of the paper, with the noise of eq. 16."""
        alpha, alpha_next = self.grid.alpha[call : call + 2]
        sigma, sigma_next = self.grid.sigma[call : call + 2]
        if not 0 <= eta <= 1:
            raise ConfigError(f"eta is {eta}; choose 0 to 1")
        x0, noise = self._predict(call)
        fresh = eta * sigma_next / sigma * math.sqrt(1 - (alpha / alpha_next) ** 2)
        direction = math.sqrt(max(sigma_next**2 - fresh**2, 0.0))
        return {"prev": alpha_next * x0 + direction * noise + fresh * NOISE, "x0": x0}
