"""Base of the solvers that run over noise levels sigma rather than over whole training timesteps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
from diffusers.configuration_utils import register_to_config

from latentdiff.errors import ConfigError
from latentdiff.models.stock_options import with_stock_options
from latentdiff.schedulers.base import TableScheduler
from latentdiff.schedulers.noise_schedule import TINY_ALPHA_BAR, NoiseGrid, karras_sigmas
from latentdiff.types import Float64Array


class SigmaScheduler(TableScheduler):
    """A solver whose levels come from `timestep_spacing`, Karras et al. (2022, eq. 5), or the caller; the last is 0.

    Args:
        num_train_timesteps: Number of training timesteps T.
        beta_start: First beta.
        beta_end: Last beta.
        beta_schedule: A name in `noise_schedule.BETA_SCHEDULES`.
        trained_betas: The betas themselves, (T,), instead of the three above.
        prediction_type: "epsilon", "v_prediction", "sample" or "flow_prediction".
        use_karras_sigmas: Whether to take the levels of Karras et al. instead of evenly spaced timesteps.
        timestep_spacing: "linspace", "leading", "trailing" or "original".
        steps_offset: Added to every timestep by "leading" spacing.
        rescale_betas_zero_snr: True to make the last training level (almost) pure noise.
        flow_shift: For a flow_prediction, moves the timesteps of a run towards the noise (above 1) or away from it.

    Attributes:
        multistep: Whether the run visits whole timesteps, leaves one grid point unvisited below the last, and spaces
            Karras levels over all of training, as diffusers' multistep solvers do.
    """

    allowed_values: ClassVar[Mapping[str, object]] = {
        **TableScheduler.allowed_values,
        "use_exponential_sigmas": False,
        "use_beta_sigmas": False,
        "final_sigmas_type": "zero",
    }
    floor = TINY_ALPHA_BAR
    multistep: ClassVar[bool] = False

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
        prediction_type: str = "epsilon",
        use_karras_sigmas: bool = False,
        timestep_spacing: str = "linspace",
        steps_offset: int = 0,
        rescale_betas_zero_snr: bool = False,
        flow_shift: float = 1.0,
    ) -> None:
        self._setup()

    def _grid(self, steps: int | None, timesteps: Float64Array | None, sigmas: Float64Array | None) -> NoiseGrid:
        schedule, config = self.schedule, self.config
        if sigmas is not None:
            if len(sigmas) < 2 or sigmas.min() < 0 or (np.diff(sigmas) >= 0).any():
                raise ConfigError("sigmas must fall strictly, end at 0 or above, and hold one level more than steps")
            return self._from_sigmas(schedule.timestep_at(sigmas[:-1]), sigmas)
        if timesteps is None:
            spacing, spare = config.timestep_spacing, int(self.multistep)
            timesteps = schedule.visited(spacing, steps or 0, config.steps_offset, spare=spare)
        elif config.use_karras_sigmas:
            raise ConfigError("timesteps were given, but use_karras_sigmas chooses them; give sigmas or turn it off")
        timesteps = self._check_timesteps(timesteps.round() if self.multistep and schedule.whole else timesteps)
        sigmas = schedule.sigma_at(timesteps)
        if config.use_karras_sigmas:
            ends = schedule.sigmas[[schedule.first, -1]] if self.multistep else sigmas[[-1, 0]]
            sigmas = karras_sigmas(float(ends[0]), float(ends[1]), len(sigmas))
            timesteps = schedule.timestep_at(sigmas)
        return self._from_sigmas(timesteps, np.append(sigmas, 0.0))

    def _from_sigmas(self, timesteps: Float64Array, sigmas: Float64Array) -> NoiseGrid:
        alpha, whole = 1 / np.sqrt(1 + sigmas**2), self.multistep and self.schedule.whole
        return NoiseGrid(timesteps.round() if whole else timesteps, alpha.tolist(), (sigmas * alpha).tolist())
