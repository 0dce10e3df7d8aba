"""The maps between a network's prediction, x0 and the noise in a noisy latent x_t = alpha x0 + sigma epsilon."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from latentdiff.errors import ConfigError
from latentdiff.schedulers.base import TableScheduler
from latentdiff.schedulers.forward import indices_of_view
from latentdiff.schedulers.noise_schedule import TINY_ALPHA_BAR
from latentdiff.schedulers.predictions import FLOW, PREDICTION_TYPES
from latentdiff.types import Float64Array, Scheduler

MAX_ALPHA_BAR = 1 - 2.0**-52  # where there is no noise, which no run visits


@dataclass(frozen=True, eq=False)
class Parametrization:
    """The maps between a prediction, x0 and epsilon (Ho et al. 2020, eq. 4; Salimans & Ho 2022, arXiv 2202.00512).

    Latents (B, C, H, W) are in the network's scale, as `scale_model_input` returns them: of unit variance for data of
    unit variance; or for a flow (1 - s) x0 + s epsilon. A timestep is a 0-d tensor or one of shape (B,) on the device
    of `timesteps`. Nothing is read back from the device.

    Attributes:
        prediction_type: "epsilon", "v_prediction", "sample" or "flow_prediction".
        timesteps: The timesteps (N,) whose noise level is known, rising; they may be fractions.
        log_snr: log(alpha^2 / sigma^2) at each of them, (N,); in between it is interpolated linearly.
        run: The timesteps (S,) of the scheduler's run. A view of them has the level of its own step, even where another
            step has the same timestep, as Karras levels may.
        run_log_snr: log(alpha^2 / sigma^2) at each step of the run, (S,); None where the scheduler doesn't tell it.
    """

    prediction_type: str
    timesteps: Tensor
    log_snr: Tensor
    run: Tensor
    run_log_snr: Tensor | None = None

    @classmethod
    def of(cls, scheduler: Scheduler, device: torch.device | str | None = None) -> Parametrization:
        """The parametrization of a scheduler of this package or of diffusers.

        Its levels are those of training, and those of the scheduler's run where these differ.

        Args:
            scheduler: The scheduler, with its timesteps set.
            device: Device of the tables.

        Raises:
            ConfigError: If the scheduler is not one of a variance-preserving process.
        """
        kind, alpha_bar = scheduler.config.get("prediction_type"), getattr(scheduler, "alphas_cumprod", None)
        if alpha_bar is None or kind not in PREDICTION_TYPES:
            raise ConfigError(
                f"{type(scheduler).__name__} predicts {kind!r}; guidance needs a noise schedule with alphas_cumprod "
                f"and one of {', '.join(PREDICTION_TYPES)}"
            )
        levels = alpha_bar.cpu()
        if kind == FLOW:
            if not isinstance(scheduler, TableScheduler):
                raise ConfigError(
                    f"diffusers' {type(scheduler).__name__} doesn't tell the levels of a {FLOW}, which guidance needs; "
                    "choose a solver of this package, such as 'ddim'"
                )
            levels = scheduler.schedule.alphas_cumprod  # float32 doesn't tell those near the image apart
        alpha_bar = np.asarray(levels, np.float64).clip(TINY_ALPHA_BAR, MAX_ALPHA_BAR)
        timesteps, log_snr = np.arange(len(alpha_bar), dtype=np.float64), np.log(alpha_bar / (1 - alpha_bar))
        run, sigmas = np.asarray(scheduler.timesteps.cpu(), np.float64), getattr(scheduler, "sigmas", None)
        own: Float64Array | None = None
        # A solver in sigma space may round its timesteps. `unique` keeps the first of equal ones: the run's own level.
        if sigmas is not None and len(sigmas) == len(run) + 1:
            sigmas = np.asarray(sigmas[:-1].cpu(), np.float64).clip(max=TINY_ALPHA_BAR**-0.5)
            own = -2 * np.log(sigmas)
            timesteps, log_snr = np.append(run, timesteps), np.append(own, log_snr)
        timesteps, first = np.unique(timesteps, return_index=True)

        def table(values: Float64Array) -> Tensor:
            return torch.from_numpy(values).float().to(device)

        run_log_snr = None if own is None else table(own)
        return cls(kind, table(timesteps), table(log_snr[first]), scheduler.timesteps, run_log_snr)

    def levels(self, timestep: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """(alpha, sigma) at a timestep, in a shape that broadcasts with `like`."""
        shape = (-1, *[1] * (like.ndim - 1))
        indices = None if self.run_log_snr is None else indices_of_view(timestep, self.run)
        if self.run_log_snr is not None and indices is not None:
            log_snr = torch.stack([self.run_log_snr[index] for index in indices]).reshape(shape)
        else:
            timestep = timestep.to(self.timesteps).reshape(shape)
            above = torch.searchsorted(self.timesteps, timestep).clamp(1, len(self.timesteps) - 1)
            low, high = self.timesteps[above - 1], self.timesteps[above]
            share = ((timestep - low) / (high - low)).clamp(0, 1)
            log_snr = torch.lerp(self.log_snr[above - 1], self.log_snr[above], share)
        if self.prediction_type == FLOW:
            return (log_snr / 2).sigmoid(), (-log_snr / 2).sigmoid()
        return log_snr.sigmoid().sqrt(), (-log_snr).sigmoid().sqrt()

    def gain(self, timestep: Tensor, like: Tensor) -> Tensor:
        """By how much x0 moves with the latents where x0 is white noise of unit variance; it broadcasts with `like`."""
        alpha, sigma = self.levels(timestep, like)
        return alpha / (alpha.square() + sigma.square()) if self.prediction_type == FLOW else alpha

    def x0(self, latents: Tensor, prediction: Tensor, timestep: Tensor) -> Tensor:
        """The estimate of the clean latents."""
        alpha, sigma = self.levels(timestep, latents)
        if self.prediction_type == "sample":
            return prediction
        if self.prediction_type == "v_prediction":
            return alpha * latents - sigma * prediction
        if self.prediction_type == FLOW:
            return latents - sigma * prediction
        return (latents - sigma * prediction) / alpha

    def epsilon(self, latents: Tensor, prediction: Tensor, timestep: Tensor) -> Tensor:
        """The estimate of the noise."""
        alpha, sigma = self.levels(timestep, latents)
        if self.prediction_type == "epsilon":
            return prediction
        if self.prediction_type == "v_prediction":
            return alpha * prediction + sigma * latents
        if self.prediction_type == FLOW:
            return latents + alpha * prediction
        return (latents - alpha * prediction) / sigma

    def shift(self, prediction: Tensor, delta_epsilon: Tensor, timestep: Tensor) -> Tensor:
        """The prediction for the same latents whose epsilon is larger by `delta_epsilon`."""
        alpha, sigma = self.levels(timestep, prediction)
        factors = {
            "epsilon": torch.ones_like(alpha),
            "v_prediction": 1 / alpha,
            FLOW: 1 / alpha,
            "sample": -sigma / alpha,
        }
        return prediction + (factors[self.prediction_type] * delta_epsilon).to(prediction.dtype)
