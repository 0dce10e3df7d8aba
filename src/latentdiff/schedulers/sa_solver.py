"""SA-Solver, the stochastic Adams solver (Xue et al. 2023, arXiv 2309.05019)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

from diffusers.configuration_utils import register_to_config

from latentdiff.errors import ConfigError
from latentdiff.models.stock_options import with_stock_options
from latentdiff.schedulers.base import Row
from latentdiff.schedulers.dpmpp import TwoStepScheduler
from latentdiff.schedulers.linear_combination import NOISE, LinearCombination, X, memory


class SASolverScheduler(TwoStepScheduler):
    """Stochastic Adams predictor and corrector of two steps on x0; second order in the mean, one model call per step.

    The reverse SDE has a free share of noise tau (section 4 of the paper): 0 is the probability flow, 1 the time
    reversal of the forward process. Every model call also corrects the sample that it was made for, with the noise that
    led to it (algorithm 1). The weights of differences of x0 are those of the authors' code, h^2 / 2 and h / 2 of the
    step h in lambda, which are the exact ones up to O(h^3). The step to noise-free images is of first order.

    Args:
        num_train_timesteps: Number of training timesteps T.
        beta_start: First beta.
        beta_end: Last beta.
        beta_schedule: A name in `noise_schedule.BETA_SCHEDULES`.
        trained_betas: The betas themselves, (T,), instead of the three above.
        tau: The share of noise, at least 0, between `tau_low` and `tau_high`; it is 0 outside.
        tau_low: The lowest timestep with noise, as a share of T.
        tau_high: The highest timestep with noise, as a share of T.
        prediction_type: "epsilon", "v_prediction", "sample" or "flow_prediction".
        use_karras_sigmas: Whether to take the levels of Karras et al. instead of evenly spaced timesteps.
        timestep_spacing: "linspace", "leading", "trailing" or "original".
        steps_offset: Added to every timestep by "leading" spacing.
        rescale_betas_zero_snr: True to make the last training level (almost) pure noise.
        flow_shift: For a flow_prediction, moves the timesteps of a run towards the noise (above 1) or away from it.
    """

    counterpart = "SASolverScheduler"
    solver_values: ClassVar[dict[str, object]] = {
        "predictor_order": 2,
        "corrector_order": 2,
        "algorithm_type": "data_prediction",
        "tau_func": None,
        "lower_order_final": True,
        "lambda_min_clipped": -math.inf,
        "variance_type": None,
    }

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
        tau: float = 1.0,
        tau_low: float = 0.2,
        tau_high: float = 0.8,
        prediction_type: str = "epsilon",
        use_karras_sigmas: bool = False,
        timestep_spacing: str = "linspace",
        steps_offset: int = 0,
        rescale_betas_zero_snr: bool = False,
        flow_shift: float = 1.0,
    ) -> None:
        self._setup()
        if not 0 <= tau < math.inf:
            raise ConfigError(f"tau is {tau}; choose a finite number of at least 0")
        if not 0 <= tau_low <= tau_high <= 1:
            raise ConfigError(
                f"tau_low and tau_high are {tau_low} and {tau_high}; choose 0 <= tau_low <= tau_high <= 1"
            )

    def _noise_share(self, level: int) -> float:
        """The square of tau for the step from a grid level."""
        config, place = self.config, self.grid.timesteps[level] / len(self.schedule)
        return float(config.tau**2) if config.tau_low <= place <= config.tau_high else 0.0

    def _noise_std(self, level: int) -> float:
        """The standard deviation of the noise that the step from a grid level adds."""
        return self.grid.sigma[level + 1] * math.sqrt(1 - self._decay(level) ** (2 * self._noise_share(level)))

    def _mean(
        self, level: int, sample: LinearCombination, x0: LinearCombination, change: LinearCombination
    ) -> LinearCombination:
        """The mean at the next level, for an estimate of x0 that changes over the step.

        Args:
            level: The level that the step starts from.
            sample: The sample there.
            x0: The estimate of x0 there.
            change: The integral over the step in lambda of what the estimate changes by.
        """
        share, decay = self._noise_share(level), self._decay(level)
        alpha_next, sigma_next = self.grid.alpha[level + 1], self.grid.sigma[level + 1]
        kept = float(sigma_next / self.grid.sigma[level] * decay**share)
        return kept * sample + alpha_next * ((1 - math.pow(decay, 1 + share)) * x0 + (1 + share) * change)

    def _row(self, call: int, history: int, eta: float) -> Row:
        x0, _ = self._predict(call)
        sample = self._corrected(call, x0) if history else X
        change, std = LinearCombination({}), self._noise_std(call)
        if history and self.grid.sigma[call + 1] > 0:
            step, last = (self._lambda(level + 1) - self._lambda(level) for level in (call, call - 1))
            change = step**2 / 2 / last * (x0 - memory("last"))
        prev = self._mean(call, sample, x0, change) + std * NOISE
        return {"prev": prev, "x0": x0, "sample": sample, "last": x0, **({"noise_added": std * NOISE} if std else {})}

    def _corrected(self, call: int, x0: LinearCombination) -> LinearCombination:
        """The result of the previous step, computed again now that the x0 estimate at its end is known."""
        level, last = call - 1, memory("last")
        change = (self._lambda(call) - self._lambda(level)) / 2 * (x0 - last)
        noise = memory("noise_added") if self._noise_std(level) else LinearCombination({})
        return self._mean(level, memory("sample"), last, change) + noise
