"""Gaussian data, for which the perfect model and the exact samples are known, so solvers' errors can be measured."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from torch import Tensor

from latentdiff.schedulers.base import TableScheduler
from latentdiff.schedulers.noise_schedule import TINY_ALPHA_BAR, NoiseSchedule
from latentdiff.schedulers.predictions import FLOW
from latentdiff.seeding import Generators
from latentdiff.types import Scheduler

ModelFunction = Callable[[Tensor, Tensor], Tensor]
"""A model as a function of (scaled sample, timestep)."""


@dataclass(frozen=True)
class GaussianData:
    """Images of independent pixels from N(mean, std^2): the denoiser is linear and the probability flow affine.

    Attributes:
        mean: The mean of every pixel.
        std: The standard deviation of every pixel.
    """

    mean: float = 0.1
    std: float = 0.3

    def model(self, scheduler: Scheduler, *, consistency: bool = False) -> ModelFunction:
        """The perfect model, in the scheduler's noise schedule and prediction type.

        Args:
            scheduler: The scheduler, whose config is read.
            consistency: Whether it is a consistency model, whose x0 is the end of the flow and not the expectation.
        """

        def predict(x: Tensor, timestep: Tensor) -> Tensor:
            alpha, sigma = noise_level(scheduler, timestep)
            total = math.hypot(alpha * self.std, sigma)
            gain = self.std / total if consistency else alpha * self.std**2 / total**2
            x0 = self.mean + gain * (x - alpha * self.mean)
            noise = (x - alpha * x0) / sigma
            predictions = {"epsilon": noise, "sample": x0, "v_prediction": alpha * noise - sigma * x0, FLOW: noise - x0}
            return predictions[scheduler.config.prediction_type]

        return predict

    def flow(self, x: Tensor, start: tuple[float, float], end: tuple[float, float]) -> Tensor:
        """The exact probability flow between two (alpha, sigma) (Song et al. 2021, arXiv 2011.13456, eq. 13)."""
        scale = math.hypot(end[0] * self.std, end[1]) / math.hypot(start[0] * self.std, start[1])
        return end[0] * self.mean + scale * (x - start[0] * self.mean)


def noise_level(scheduler: Scheduler, timestep: Tensor | float) -> tuple[float, float]:
    """(alpha, sigma) of a timestep in the noise schedule of the scheduler's config, in the network's scale."""
    if scheduler.config.prediction_type == FLOW:
        floor = scheduler.floor if isinstance(scheduler, TableScheduler) else 0.0
        levels = NoiseSchedule.from_config(scheduler.config, floor)
        alpha_bar = float(levels.alpha_bar_at(np.asarray(float(timestep))))
        alpha, sigma = math.sqrt(alpha_bar), math.sqrt(1 - alpha_bar)
        return alpha / (alpha + sigma), sigma / (alpha + sigma)
    schedule = NoiseSchedule.from_config(scheduler.config, TINY_ALPHA_BAR)
    ratio = float(schedule.sigma_at(np.asarray(float(timestep))))
    return 1 / math.hypot(1, ratio), ratio / math.hypot(1, ratio)


def run_scheduler(
    scheduler: Scheduler,
    model: ModelFunction,
    x: Tensor,
    *,
    generator: Generators = None,
    timesteps: Tensor | None = None,
) -> Tensor:
    """Sample with a model, from noise x (B, C, H, W), over `timesteps` or all of the scheduler's."""
    options: dict[str, Any] = {"return_dict": False}
    if "generator" in inspect.signature(scheduler.step).parameters:
        options["generator"] = generator
    for timestep in scheduler.timesteps if timesteps is None else timesteps:
        output = model(scheduler.scale_model_input(x, timestep), timestep)
        x = scheduler.step(output, timestep, x, **options)[0]
    return x


def flow_error(make: Callable[[], SchedulerMixin], steps: int, data: GaussianData | None = None) -> float:
    """The largest error of a deterministic solver that takes Gaussian data from timestep 900 to 100, in float64.

    Args:
        make: The function that makes the scheduler; the scheduler's set_timesteps must take `timesteps`.
        steps: The number of steps, a divisor of 800. The step to the noise-free image, which most solvers take at first
            order, is left out.
        data: The data; by default those of `GaussianData()`.
    """
    data, scheduler = data or GaussianData(), make()
    scheduler.set_timesteps(timesteps=list(range(900, 99, -800 // steps)))
    start, end = noise_level(scheduler, 900), noise_level(scheduler, 100)
    x = torch.linspace(-1, 2, 4, dtype=torch.float64).reshape(1, 1, 2, 2)
    # A sample that is kept at unit image scale is x / alpha.
    scale = scheduler.scale_model_input(torch.ones_like(x), scheduler.timesteps[0])
    reached = run_scheduler(scheduler, data.model(scheduler), x / scale, timesteps=scheduler.timesteps[:-1])
    reached = scheduler.scale_model_input(reached, scheduler.timesteps[-1])
    return float((reached - data.flow(x, start, end)).abs().max())


def measure_order(make: Callable[[], SchedulerMixin], counts: Sequence[int] = (20, 40, 80, 160)) -> float:
    """The order of convergence of a deterministic solver: minus the slope of log `flow_error` over log steps.

    Args:
        make: The function that makes the scheduler, as in `flow_error`.
        counts: The numbers of steps, divisors of 800.
    """
    errors = [flow_error(make, count) for count in counts]
    slope, _ = np.polyfit(np.log(counts), np.log(errors), 1)
    return float(-slope)
