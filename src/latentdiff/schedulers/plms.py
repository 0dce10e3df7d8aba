"""PLMS, the pseudo linear multistep method (Liu et al. 2022, arXiv 2202.09778), as the original code runs it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from diffusers.configuration_utils import register_to_config

from latentdiff.errors import ConfigError
from latentdiff.models.stock_options import with_stock_options
from latentdiff.schedulers.base import Row, TableScheduler
from latentdiff.schedulers.linear_combination import LinearCombination, X, memory
from latentdiff.schedulers.predictions import FLOW

ADAMS_BASHFORTH: Mapping[int, tuple[float, ...]] = {
    1: (1,),
    2: (3 / 2, -1 / 2),
    3: (23 / 12, -16 / 12, 5 / 12),
    4: (55 / 24, -59 / 24, 37 / 24, -9 / 24),
}
"""Weights of the newest and the older noise estimates, by order (eq. 12 of the paper for order 4)."""


class PLMSScheduler(TableScheduler):
    """Second order, deterministic: DDIM steps with an Adams-Bashforth mean of the last four noise estimates.

    The first step is Euler's, repeated with the mean of the estimates at both of its ends (pseudo improved Euler), so a
    run of S steps calls the model S + 1 times and `timesteps` holds its second timestep twice. A run that starts later
    (`set_begin_index`) begins with a DDIM step and builds its order up. Predictions of v or x0 are converted to noise
    before they are averaged. (diffusers averages v itself, which makes the method first order.)

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

    counterpart = "PNDMScheduler"
    solver_values: ClassVar[Mapping[str, object]] = {"skip_prk_steps": True}
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
        set_alpha_to_one: bool = False,
        steps_offset: int = 0,
        prediction_type: str = "epsilon",
        timestep_spacing: str = "leading",
        rescale_betas_zero_snr: bool = False,
    ) -> None:
        if prediction_type == FLOW:
            raise ConfigError(
                f"PLMS averages estimates of the noise, which say nothing of the image where a {FLOW} begins; choose "
                "another solver"
            )
        self._setup()

    def _final_alpha_bar(self) -> float:
        return 1.0 if self.config.set_alpha_to_one else float(self.schedule.alphas_cumprod[0])

    def _call_levels(self, count: int) -> Sequence[int]:
        return [0] if count == 1 else [0, 1, *range(1, count)]

    def _x0_weight(self, call: int) -> float:
        level = self._calls[call]
        if call == 1:  # the first step once more, or nothing where the run starts here
            return self.grid.alpha[1] if self._first == 0 else 0.0
        return self.grid.alpha[level + 1]

    def _transfer(self, level: int, x: LinearCombination, noise: LinearCombination) -> Row:
        """The DDIM step from a grid level to the next."""
        x0, _ = self._predict(level, x, noise, "epsilon")
        return {"prev": self.grid.alpha[level + 1] * x0 + self.grid.sigma[level + 1] * noise, "x0": x0}

    def _row(self, call: int, history: int, eta: float) -> Row:
        first, level = call - history, self._calls[call]
        x0, noise = self._predict(level)
        noises = [noise, memory("noise1"), memory("noise2"), memory("noise3")]
        if call == 0:
            return {**self._transfer(0, X, noise), "start": X, "noise1": noise}
        if call == 1 and first == 0:
            return {**self._transfer(0, memory("start"), 0.5 * (noise + noises[1])), "noise1": noises[1]}
        if call == 1:
            return {"prev": X, "x0": x0}
        order = min(history + (first > 1), 4)
        mean = sum((w * e for w, e in zip(ADAMS_BASHFORTH[order], noises, strict=False)), LinearCombination({}))
        kept = {f"noise{age}": noises[age - 1] for age in range(1, min(order, 3) + 1)}
        return {**self._transfer(level, X, mean), **kept}
