"""Restart sampling (Xu et al. 2023, arXiv 2306.14878)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from diffusers.configuration_utils import register_to_config

from latentdiff.errors import ConfigError
from latentdiff.models.stock_options import with_stock_options
from latentdiff.schedulers.base import Row
from latentdiff.schedulers.heun import HeunScheduler
from latentdiff.schedulers.linear_combination import NOISE
from latentdiff.schedulers.noise_schedule import NoiseGrid, karras_sigmas
from latentdiff.types import Float64Array


class RestartScheduler(HeunScheduler):
    """Heun's method that goes back up: noise is added to an image that is almost done, and removed once more.

    Adding noise contracts the errors that the steps have made so far, and the steps themselves are deterministic
    (algorithm 1 of the paper, with one interval). The run falls to the level that is nearest to `restart_min`. There,
    `num_restarts` times, noise leads it up to `restart_max` and `restart_steps` steps lead it down again, over the
    levels of Karras et al. (2022, eq. 5). Then it falls to 0. `timesteps` rise where noise is added.

    `num_inference_steps` counts all steps, those of the restarts included. Where `timesteps` or `sigmas` are given,
    they are those of a run without restarts, which are added. A run that is too short for them, without a level between
    0 and `restart_max` or with fewer than 2 `num_restarts` steps, has none.

    Args:
        num_train_timesteps: Number of training timesteps T.
        beta_start: First beta.
        beta_end: Last beta.
        beta_schedule: A name in `noise_schedule.BETA_SCHEDULES`.
        trained_betas: The betas themselves, (T,), instead of the three above.
        num_restarts: How often the run goes back up, K in the paper.
        restart_steps: Number of steps of each restart; None for as many as make half of the run restarts.
        restart_min: The sigma, at unit image scale, from which the run goes up.
        restart_max: The sigma, at unit image scale, to which it goes up, though never above the levels of training.
        prediction_type: "epsilon", "v_prediction", "sample" or "flow_prediction".
        use_karras_sigmas: Whether to take the levels of Karras et al. instead of evenly spaced timesteps.
        timestep_spacing: "linspace", "leading", "trailing" or "original".
        steps_offset: Added to every timestep by "leading" spacing.
        rescale_betas_zero_snr: True to make the last training level (almost) pure noise.
        flow_shift: For a flow_prediction, moves the timesteps of a run towards the noise (above 1) or away from it.
    """

    counterpart = ""
    rises: ClassVar[bool] = True

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
        num_restarts: int = 1,
        restart_steps: int | None = None,
        restart_min: float = 0.1,
        restart_max: float = 2.0,
        prediction_type: str = "epsilon",
        use_karras_sigmas: bool = False,
        timestep_spacing: str = "linspace",
        steps_offset: int = 0,
        rescale_betas_zero_snr: bool = False,
        flow_shift: float = 1.0,
    ) -> None:
        self._setup()
        if num_restarts < 0:
            raise ConfigError(f"num_restarts is {num_restarts}; choose 0 or more")
        if restart_steps is not None and (not isinstance(restart_steps, int) or restart_steps < 1):
            raise ConfigError(f"restart_steps is {restart_steps!r}; choose at least 1, or None for half of the run")
        if not 0 < restart_min < restart_max < math.inf:
            raise ConfigError(
                f"restart_min and restart_max are {restart_min:g} and {restart_max:g}; choose "
                "0 < restart_min < restart_max"
            )

    def _grid(self, steps: int | None, timesteps: Float64Array | None, sigmas: Float64Array | None) -> NoiseGrid:
        times, each = self.config.num_restarts, self.config.restart_steps
        plain = super()._grid(steps, timesteps, sigmas)
        if not times:
            return plain
        if steps is None:
            return self._with_restarts(plain, len(plain.timesteps) // times if each is None else each) or plain
        each = steps // (2 * times) if each is None else each
        if steps <= times * each:
            raise ConfigError(
                f"num_inference_steps is {steps}, and {times} restarts of {each} steps take {times * each} of them; "
                "raise it, or lower restart_steps"
            )
        return self._with_restarts(super()._grid(steps - times * each, None, None), each) or plain

    def _with_restarts(self, grid: NoiseGrid, steps: int) -> NoiseGrid | None:
        """A falling grid with the restarts of the config, each of `steps` steps; None if it is too short for them."""
        config, levels = self.config, np.divide(grid.sigma, grid.alpha)
        highest = min(config.restart_max, float(self.schedule.sigmas[-1]))
        inner = [level for level in range(1, len(grid.timesteps)) if levels[level] < highest]
        if not inner or not steps:
            return None
        lowest = min(inner, key=lambda level: abs(float(levels[level]) - config.restart_min))
        raised = karras_sigmas(float(levels[lowest]), highest, steps + 1)[:-1]
        again = np.append(raised, levels[lowest])
        times = np.append(self.schedule.timestep_at(raised), grid.timesteps[lowest])
        before, after = slice(None, lowest + 1), slice(lowest + 1, None)
        return self._from_sigmas(
            np.concatenate([grid.timesteps[before], np.tile(times, config.num_restarts), grid.timesteps[after]]),
            np.concatenate([levels[before], np.tile(again, config.num_restarts), levels[after]]),
        )

    def _call_levels(self, count: int) -> Sequence[int]:
        """Both ends of every step that lowers the noise; the last one's end, at sigma 0, needs no call."""
        falling = [level for level in range(count) if self._sigma(level + 1) < self._sigma(level)]
        return [end for level in falling for end in (level, level + 1)][:-1]

    def _row(self, call: int, history: int, eta: float) -> Row:
        """Heun's, and at the end of the steps before a rise the noise up to its level."""
        row, level = super()._row(call, history, eta), self._calls[call]
        if call % 2 == 0 or self._sigma(level + 1) < self._sigma(level):
            return row
        rise = math.sqrt(self._sigma(level + 1) ** 2 - self._sigma(level) ** 2)
        return {**row, "prev": row["prev"] + rise * NOISE}
