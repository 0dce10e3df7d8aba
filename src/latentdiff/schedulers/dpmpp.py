"""DPM-Solver++ 2M and its stochastic form (Lu et al. 2022, arXiv 2211.01095)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

from latentdiff.schedulers.base import Row
from latentdiff.schedulers.linear_combination import NOISE, LinearCombination, X, memory
from latentdiff.schedulers.sigma import SigmaScheduler

MULTISTEP_VALUES: Mapping[str, object] = {
    "solver_order": 2,
    "solver_type": "midpoint",
    "lower_order_final": True,
    "euler_at_final": False,
    "use_lu_lambdas": False,
    "lambda_min_clipped": -math.inf,
    "variance_type": None,
}


class TwoStepScheduler(SigmaScheduler):
    """Base of the solvers that integrate over lambda exactly, with x0 extrapolated from its last two estimates.

    lambda is half the log signal-to-noise ratio, log(alpha / sigma).
    """

    multistep: ClassVar[bool] = True

    def _lambda(self, level: int) -> float:
        """The lambda of a grid level."""
        return math.log(self.grid.alpha[level] / self.grid.sigma[level])

    def _estimates(self, call: int, history: int) -> tuple[LinearCombination, LinearCombination]:
        """The estimate of x0 at this level, and the estimate D extrapolated to the middle of the step in lambda.

        They are equal, which makes a step of first order, at the start of a run and on the step that lands on
        noise-free images, where lambda is infinite.
        """
        x0, _ = self._predict(call)
        if history == 0 or self.grid.sigma[call + 1] == 0:
            return x0, x0
        ratio = (self._lambda(call) - self._lambda(call - 1)) / (self._lambda(call + 1) - self._lambda(call))
        return x0, x0 + (x0 - memory("last")) / (2 * ratio)

    def _decay(self, call: int) -> float:
        """exp(-h), where h is the step in lambda."""
        alpha, alpha_next = self.grid.alpha[call : call + 2]
        sigma, sigma_next = self.grid.sigma[call : call + 2]
        return sigma_next * alpha / (alpha_next * sigma)

    def _transfer(self, call: int, sample: LinearCombination, estimate: LinearCombination) -> LinearCombination:
        """The sample at the next level for an x0 that is constant over the step (eq. 8 of the paper with k = 1)."""
        weight = self.grid.alpha[call + 1] * (1 - self._decay(call))
        return self.grid.sigma[call + 1] / self.grid.sigma[call] * sample + weight * estimate


class DPMSolverPP2MScheduler(TwoStepScheduler):
    """Second order, deterministic, one model call per step (algorithm 2 of the paper)."""

    counterpart = "DPMSolverMultistepScheduler"
    solver_values: ClassVar[Mapping[str, object]] = {**MULTISTEP_VALUES, "algorithm_type": "dpmsolver++"}

    def _row(self, call: int, history: int, eta: float) -> Row:
        x0, estimate = self._estimates(call, history)
        return {"prev": self._transfer(call, X, estimate), "x0": x0, "last": x0}


class DPMSolverPP2MSDEScheduler(TwoStepScheduler):
    """DPM-Solver++ 2M for the reverse SDE: second order in the mean, exact in the added noise (appendix A, SDE-2M)."""

    counterpart = "DPMSolverMultistepScheduler"
    solver_values: ClassVar[Mapping[str, object]] = {**MULTISTEP_VALUES, "algorithm_type": "sde-dpmsolver++"}

    def _row(self, call: int, history: int, eta: float) -> Row:
        alpha_next, sigma_next = self.grid.alpha[call + 1], self.grid.sigma[call + 1]
        x0, estimate = self._estimates(call, history)
        decay = self._decay(call)
        mean = sigma_next / self.grid.sigma[call] * decay * X + alpha_next * (1 - decay**2) * estimate
        return {"prev": mean + sigma_next * math.sqrt(1 - decay**2) * NOISE, "x0": x0, "last": x0}
