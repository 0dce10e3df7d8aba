"""Euler's method on the probability-flow ODE, and its ancestral variant (Karras et al. 2022, arXiv 2206.00364)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

from latentdiff.schedulers.base import Row
from latentdiff.schedulers.linear_combination import NOISE, LinearCombination, X
from latentdiff.schedulers.sigma import SigmaScheduler


class ExplodingScheduler(SigmaScheduler):
    """Base of the solvers of dx/dsigma = (x - x0) / sigma, whose sample is x0 + sigma noise."""

    exploding: ClassVar[bool] = True
    fixed: ClassVar[Mapping[str, object]] = {
        "interpolation_type": "linear",
        "timestep_type": "discrete",
        "sigma_min": None,
        "sigma_max": None,
    }

    def _sigma(self, level: int) -> float:
        return self.grid.sigma[level] / self.grid.alpha[level]

    def _slope(self, level: int) -> tuple[LinearCombination, LinearCombination]:
        """(x0, dx/dsigma) at a grid level (eq. 3)."""
        x0, _ = self._predict(level)
        return x0, (X - x0) / self._sigma(level)


class EulerScheduler(ExplodingScheduler):
    """First order, deterministic (algorithm 1 without the correction)."""

    counterpart = "EulerDiscreteScheduler"

    def _row(self, call: int, history: int, eta: float) -> Row:
        x0, slope = self._slope(call)
        return {"prev": X + (self._sigma(call + 1) - self._sigma(call)) * slope, "x0": x0}


class EulerAncestralScheduler(ExplodingScheduler):
    """Euler down to `down`, then fresh noise back up to the next level; first order, stochastic."""

    counterpart = "EulerAncestralDiscreteScheduler"

    def _row(self, call: int, history: int, eta: float) -> Row:
        sigma, sigma_next = self._sigma(call), self._sigma(call + 1)
        up = sigma_next / sigma * math.sqrt(sigma**2 - sigma_next**2)
        down = sigma_next**2 / sigma
        x0, slope = self._slope(call)
        return {"prev": X + (down - sigma) * slope + up * NOISE, "x0": x0}
