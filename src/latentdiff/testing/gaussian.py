"""Gaussian data: the perfect model and the exact answer are known in closed form, so a solver's error is measurable."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from latentdiff.schedulers.noise_schedule import TINY_ALPHA_BAR, NoiseSchedule

Model = Callable[[Tensor, Tensor], Tensor]
"""From (scaled sample, timestep) to the output."""


@dataclass(frozen=True)
class GaussianData:
    """Independent pixels of N(mean, std^2): every conditional expectation is linear, every flow affine."""

    mean: float = 0.1
    std: float = 0.3

    def model(self, scheduler: Any, *, consistency: bool = False) -> Model:
        """The perfect model, in the scheduler's noise schedule and prediction type.

        Args:
            scheduler: Its config is read.
            consistency: True for a consistency model, whose x0 is the end of the flow rather than the expectation.
        """

        def output(x: Tensor, timestep: Tensor) -> Tensor:
            alpha, sigma = level(scheduler, timestep)
            total = math.hypot(alpha * self.std, sigma)
            gain = self.std / total if consistency else alpha * self.std**2 / total**2
            x0 = self.mean + gain * (x - alpha * self.mean)
            noise = (x - alpha * x0) / sigma
            return {"epsilon": noise, "sample": x0, "v_prediction": alpha * noise - sigma * x0}[
                scheduler.config.prediction_type
            ]

        return output

    def flow(self, x: Tensor, start: tuple[float, float], end: tuple[float, float]) -> Tensor:
        """The exact probability flow between two (alpha, sigma) (Song et al. 2021, arXiv 2011.13456, eq. 13)."""
        scale = math.hypot(end[0] * self.std, end[1]) / math.hypot(start[0] * self.std, start[1])
        return end[0] * self.mean + scale * (x - start[0] * self.mean)


def level(scheduler: Any, timestep: Tensor | float) -> tuple[float, float]:
    """(alpha, sigma) of a timestep under the noise schedule in the scheduler's config."""
    schedule = NoiseSchedule.from_config(scheduler.config, TINY_ALPHA_BAR)
    ratio = float(schedule.sigma_at(np.asarray(float(timestep))))
    return 1 / math.hypot(1, ratio), ratio / math.hypot(1, ratio)


def run(scheduler: Any, model: Model, x: Tensor, *, generator: Any = None, timesteps: Tensor | None = None) -> Tensor:
    """The sampling loop, over `timesteps` or all of the run's."""
    known = inspect.signature(scheduler.step).parameters
    options = {"generator": generator} if "generator" in known else {}
    for timestep in scheduler.timesteps if timesteps is None else timesteps:
        output = model(scheduler.scale_model_input(x, timestep), timestep)
        x = scheduler.step(output, timestep, x, return_dict=False, **options)[0]
    return x


def flow_error(make: Callable[[], Any], steps: int, data: GaussianData | None = None) -> float:
    """The largest error of a deterministic solver that takes Gaussian data from timestep 900 to 100, in float64.

    Args:
        make: Makes the scheduler; its set_timesteps must know `timesteps`.
        steps: A divisor of 800. The step onto the noise-free image, which most take at first order, is left out.
        data: The data.
    """
    data, scheduler = data or GaussianData(), make()
    scheduler.set_timesteps(timesteps=list(range(900, 99, -800 // steps)))
    start, end = level(scheduler, 900), level(scheduler, 100)
    x = torch.linspace(-1, 2, 4, dtype=torch.float64).reshape(1, 1, 2, 2)
    # A sample that is kept at unit image scale is x / alpha.
    scale = scheduler.scale_model_input(torch.ones_like(x), scheduler.timesteps[0])
    reached = run(scheduler, data.model(scheduler), x / scale, timesteps=scheduler.timesteps[:-1])
    reached = scheduler.scale_model_input(reached, scheduler.timesteps[-1])
    return float((reached - data.flow(x, start, end)).abs().max())


def measure_order(make: Callable[[], Any], counts: Sequence[int] = (20, 40, 80, 160)) -> float:
    """The order of convergence of a deterministic solver: minus the slope of log `flow_error` over log steps."""
    return float(-np.polyfit(np.log(counts), np.log([flow_error(make, count) for count in counts]), 1)[0])
