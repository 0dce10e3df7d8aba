"""Euler's method on the probability-flow ODE, and its ancestral variant (Karras et al. 2022, arXiv 2206.00364)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

from latentdiff.schedulers.base import Row
from latentdiff.schedulers.linear_combination import NOISE, LinearCombination, X
from latentdiff.schedulers.sigma import SigmaScheduler


class VarianceExplodingScheduler(SigmaScheduler):
    """Base of the solvers of dx/dsigma = (x - x0) / sigma, whose sample is x0 + sigma noise (eq. 3 of the paper)."""

    variance_exploding: ClassVar[bool] = True
    solver_values: ClassVar[Mapping[str, object]] = {
        "interpolation_type": "linear",
        "timestep_type": "discrete",
        "sigma_min": None,
        "sigma_max": None,
    }

    def _sigma(self, level: int) -> float:
        """The standard deviation of the noise at a grid level, at unit image scale."""
        return self.grid.sigma[level] / self.grid.alpha[level]

    def _slope(self, level: int) -> tuple[LinearCombination, LinearCombination]:
        """The estimate of x0 and dx/dsigma at a grid level."""
        x0, _ = self._predict(level)
        return x0, (X - x0) / self._sigma(level)


class EulerScheduler(VarianceExplodingScheduler):
    """First order, deterministic (algorithm 1 of the paper without the second-order correction)."""

    counterpart = "EulerDiscreteScheduler"

    def _row(self, call: int, history: int, eta: float) -> Row:
        x0, slope = self._slope(call)
        return {"prev": X + (self._sigma(call + 1) - self._sigma(call)) * slope, "x0": x0}


class EulerAncestralScheduler(VarianceExplodingScheduler):
    """First order, stochastic: Euler's method to a level below the next, then fresh noise up to the next level."""

    counterpart = "EulerAncestralDiscreteScheduler"

    def _row(self, call: int, history: int, eta: float) -> Row:
        sigma, sigma_next = self._sigma(call), self._sigma(call + 1)
        up = sigma_next / sigma * math.sqrt(sigma**2 - sigma_next**2)
        down = sigma_next**2 / sigma
        x0, slope = self._slope(call)
        return {"prev": X + (down - sigma) * slope + up * NOISE, "x0": x0}
