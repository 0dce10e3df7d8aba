"""LCM, multistep consistency sampling (Luo et al. 2023, arXiv 2310.04378, algorithm 3)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from diffusers.configuration_utils import register_to_config

from latentdiff.errors import ConfigError
from latentdiff.models.stock_options import with_stock_options
from latentdiff.schedulers.base import Row, TableScheduler
from latentdiff.schedulers.linear_combination import NOISE, X
from latentdiff.schedulers.noise_schedule import NoiseGrid
from latentdiff.schedulers.predictions import network_scale
from latentdiff.types import Float64Array

SIGMA_DATA = 0.5


def distilled_timesteps(original: int, num_train_timesteps: int, first: int = 0) -> Float64Array:
    """The timesteps (original,) that a model is distilled at, falling from the last of training.

    Args:
        original: Number of solver steps of the distillation.
        num_train_timesteps: Number of training timesteps T.
        first: The timestep of the cleanest level that the model is trained on.
    """
    return np.arange(original, 0.0, -1.0) * (num_train_timesteps // original) + (first - 1.0)


def boundary_weights(time: float) -> tuple[float, float]:
    """The weights of the sample and of the estimate of x0 at a scaled timestep (eq. 9 of the paper)."""
    return SIGMA_DATA**2 / (time**2 + SIGMA_DATA**2), time / math.hypot(time, SIGMA_DATA)


class LCMScheduler(TableScheduler):
    """Sampler of latent consistency models: predict x0, then add the noise of the next timestep.

    Args:
        num_train_timesteps: Number of training timesteps T.
        beta_start: First beta.
        beta_end: Last beta.
        beta_schedule: A name in `noise_schedule.BETA_SCHEDULES`.
        trained_betas: The betas themselves, (T,), instead of the three above.
        original_inference_steps: Number of solver steps that the model was distilled with; a run visits some of them.
        prediction_type: "epsilon", "v_prediction", "sample" or "flow_prediction".
        timestep_scaling: Factor on the timestep in the boundary condition (eq. 9 of the paper).
        rescale_betas_zero_snr: True to make the last training level pure noise.
    """

    counterpart = "LCMScheduler"

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
        timestep_scaling: float = 10.0,
        rescale_betas_zero_snr: bool = False,
    ) -> None:
        self._take_original(original_inference_steps)
        self._setup()

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: str | torch.device | None = None,
        original_inference_steps: int | None = None,
        *,
        timesteps: Sequence[float] | None = None,
        sigmas: Sequence[float] | None = None,
    ) -> None:
        """Choose the timesteps of a run, as `TableScheduler.set_timesteps` does.

        Args:
            num_inference_steps: Number of solver steps, at most `original_inference_steps`.
            device: Device of `self.timesteps`.
            original_inference_steps: Number of solver steps of the distillation that the run visits some of; the
                config's by default.
            timesteps: The training timesteps to visit, falling.
            sigmas: Not offered by this solver.

        Raises:
            ConfigError: If an argument is not valid for this solver.
        """
        if original_inference_steps is None:
            original_inference_steps = self.config.original_inference_steps
        self._take_original(original_inference_steps)
        super().set_timesteps(num_inference_steps, device, timesteps=timesteps, sigmas=sigmas)

    def _take_original(self, steps: int) -> None:
        last = self.config.num_train_timesteps
        if isinstance(steps, bool) or not isinstance(steps, int) or not 1 <= steps <= last:
            raise ConfigError(f"original_inference_steps is {steps!r}; choose 1 to {last}")
        self._original = steps

    def _grid(self, steps: int | None, timesteps: Float64Array | None, sigmas: Float64Array | None) -> NoiseGrid:
        if steps is not None:
            original = self._original
            if not 1 <= steps <= original:
                raise ConfigError(f"num_inference_steps is {steps}; choose 1 to original_inference_steps {original}")
            distilled = distilled_timesteps(original, self.config.num_train_timesteps, self.schedule.first)
            timesteps = distilled[np.floor(np.linspace(0, original, steps, endpoint=False)).astype(int)]
        return super()._grid(None, timesteps, sigmas)

    def _row(self, call: int, history: int, eta: float) -> Row:
        """The consistency function with its boundary condition (eq. 9 of the paper), then the noise of algorithm 3."""
        alpha, sigma = self.grid.alpha[call], self.grid.sigma[call]
        skip, gain = boundary_weights(self.grid.timesteps[call] * self.config.timestep_scaling)
        seen = network_scale(self.config.prediction_type, alpha, sigma) * X
        x0 = gain * self._predict(call)[0] + skip * seen
        return {"prev": self.grid.alpha[call + 1] * x0 + self.grid.sigma[call + 1] * NOISE, "x0": x0}
