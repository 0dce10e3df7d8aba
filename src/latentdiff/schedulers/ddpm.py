"""DDPM, ancestral sampling (Ho et al. 2020, arXiv 2006.11239, algorithm 2), over all timesteps or a subset."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

from diffusers.configuration_utils import register_to_config

from latentdiff.errors import ConfigError
from latentdiff.models.stock_options import with_stock_options
from latentdiff.schedulers.base import Row, TableScheduler
from latentdiff.schedulers.linear_combination import NOISE, X

VARIANCE_TYPES = ("fixed_small", "fixed_large", None)


class DDPMScheduler(TableScheduler):
    """First order and stochastic. The step from timestep 0 adds no noise.

    Args:
        num_train_timesteps: Number of training timesteps T.
        beta_start: First beta.
        beta_end: Last beta.
        beta_schedule: A name in `noise_schedule.BETA_SCHEDULES`.
        trained_betas: The betas themselves, (T,), instead of the three above.
        variance_type: "fixed_small" is the posterior's variance, as in the original code, "fixed_large" is beta. None,
            which is in other solvers' configs, means "fixed_small".
        prediction_type: "epsilon", "v_prediction", "sample" or "flow_prediction".
        timestep_spacing: "leading", "trailing", "linspace" or "original".
        steps_offset: Added to every timestep by "leading" spacing.
        rescale_betas_zero_snr: True to make the last training level pure noise.
        flow_shift: For a flow_prediction, moves the timesteps of a run towards the noise (above 1) or away from it.
    """

    counterpart = "DDPMScheduler"
    has_x0_weight: ClassVar[bool] = True
    visits_all_timesteps: ClassVar[bool] = True

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
        variance_type: str | None = "fixed_small",
        prediction_type: str = "epsilon",
        timestep_spacing: str = "leading",
        steps_offset: int = 0,
        rescale_betas_zero_snr: bool = False,
        flow_shift: float = 1.0,
    ) -> None:
        if variance_type not in VARIANCE_TYPES:
            raise ConfigError(f"variance_type is {variance_type!r}; choose fixed_small or fixed_large")
        self._setup()

    def _x0_weight(self, call: int) -> float:
        alpha, alpha_next = self.grid.alpha[call : call + 2]
        return alpha_next * (1 - (alpha / alpha_next) ** 2) / self.grid.sigma[call] ** 2

    def _row(self, call: int, history: int, eta: float) -> Row:
        """Eq. 7 of the paper, where beta is that of the whole step: 1 - alpha_bar_t / alpha_bar_next."""
        alpha, alpha_next = self.grid.alpha[call : call + 2]
        sigma, sigma_next = self.grid.sigma[call : call + 2]
        x0, _ = self._predict(call)
        beta = 1 - (alpha / alpha_next) ** 2
        mean = alpha_next * beta / sigma**2 * x0 + alpha / alpha_next * (sigma_next / sigma) ** 2 * X
        std = math.sqrt(beta)
        if self.config.variance_type != "fixed_large":
            std *= sigma_next / sigma
        return {"prev": mean + std * NOISE if self.grid.timesteps[call] > self.schedule.first else mean, "x0": x0}
