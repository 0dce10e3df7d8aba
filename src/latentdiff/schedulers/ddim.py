"""DDIM (Song et al. 2021, arXiv 2010.02502)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

from diffusers.configuration_utils import register_to_config

from latentdiff.errors import ConfigError
from latentdiff.schedulers.base import Row, TableScheduler
from latentdiff.schedulers.linear_combination import NOISE


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
        prediction_type: "epsilon", "v_prediction" or "sample".
        timestep_spacing: "leading", "trailing", "linspace" or "original".
        rescale_betas_zero_snr: True to make the last training level pure noise.
    """

    counterpart = "DDIMScheduler"
    has_eta: ClassVar[bool] = True
    has_x0_weight: ClassVar[bool] = True

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        *,
        num_train_timesteps: int = 1000,
        beta_start: float = 0.0001,
        beta_end: float = 0.02,
        beta_schedule: str = "linear",
        trained_betas: Sequence[float] | None = None,
        set_alpha_to_one: bool = True,
        steps_offset: int = 0,
        prediction_type: str = "epsilon",
        timestep_spacing: str = "leading",
        rescale_betas_zero_snr: bool = False,
    ) -> None:
        self._setup()

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
