"""ER-SDE-Solver: the extended reverse-time SDE (Cui et al. 2023, arXiv 2309.06169)."""

from __future__ import annotations

import math

import numpy as np

from latentdiff.schedulers.base import Row
from latentdiff.schedulers.dpmpp import TwoStepScheduler
from latentdiff.schedulers.linear_combination import NOISE, X, memory
from latentdiff.schedulers.noise_schedule import gauss_legendre
from latentdiff.types import Float64Array


def noise_scale(sigma: Float64Array) -> Float64Array:
    """The paper's noise scale function phi, "ER SDE 5": sigma (exp(sigma^0.3) + 10).

    phi = sigma would be the probability flow, and phi = sigma^2 the time reversal of the forward process.
    """
    return np.asarray(sigma * (np.exp(sigma**0.3) + 10))


class ERSDEScheduler(TwoStepScheduler):
    """ER-SDE-Solver-3 for variance-preserving models: second order in the mean, stochastic, one model call per step.

    At unit image scale, x / alpha and sigma / alpha, x0 is a Taylor polynomial in sigma, whose two derivatives are
    differences of the last three estimates, and everything else of the SDE is integrated exactly. The first derivative
    is a one-sided difference, hence the order. The first two steps have fewer derivatives, and the step to noise-free
    images has none.
    """

    def _sigma(self, level: int) -> float:
        """The standard deviation of the noise at a grid level, at unit image scale."""
        return self.grid.sigma[level] / self.grid.alpha[level]

    def _row(self, call: int, history: int, eta: float) -> Row:
        alpha, alpha_next = self.grid.alpha[call : call + 2]
        sigma, sigma_next = self._sigma(call), self._sigma(call + 1)
        x0, _ = self._predict(call)
        slope = (x0 - memory("last")) / (sigma - self._sigma(call - 1)) if history else 0.0 * x0
        row = {"x0": x0, "last": x0, **({"slope": slope} if history else {})}
        if sigma_next == 0:
            return {**row, "prev": alpha_next * x0}
        start, end = noise_scale(np.array([sigma, sigma_next]))
        kept, width = float(end / start), sigma_next - sigma
        first, second = integrals(sigma_next, sigma)
        prev = kept / alpha * X + (1 - kept) * x0 + (width + end * first) * slope
        if history > 1:
            curvature = (slope - memory("slope")) / ((sigma - self._sigma(call - 2)) / 2)
            prev = prev + (width**2 / 2 + end * second) * curvature
        std = math.sqrt(sigma_next**2 - (sigma * kept) ** 2)
        return {**row, "prev": alpha_next * (prev + std * NOISE)}


def integrals(low: float, high: float) -> tuple[float, float]:
    """The integrals of 1 / phi(sigma) and of (sigma - high) / phi(sigma) from `low` to `high`."""
    points, weights = gauss_legendre(32)
    half = math.log(high / low) / 2
    sigma = low * np.exp(half * (points + 1))
    density = half * weights * sigma / noise_scale(sigma)
    return float(density.sum()), float((density * (sigma - high)).sum())
