"""DPM-Solver++ 2M and its stochastic form (Lu et al. 2022, arXiv 2211.01095)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

from latentdiff.schedulers.base import Row
from latentdiff.schedulers.linear_combination import NOISE, LinearCombination, X, memory
from latentdiff.schedulers.sigma import SigmaScheduler

SOLVER_LIMITS: Mapping[str, object] = {
    "solver_order": 2,
    "solver_type": "midpoint",
    "lower_order_final": True,
    "euler_at_final": False,
    "use_lu_lambdas": False,
    "lambda_min_clipped": -math.inf,
    "variance_type": None,
}


class TwoStepScheduler(SigmaScheduler):
    """Base of the solvers that integrate x0 exactly over lambda, extrapolating it from the last two estimates."""

    multistep: ClassVar[bool] = True

    def _lambda(self, level: int) -> float:
        """Half the log signal-to-noise ratio."""
        return math.log(self.grid.alpha[level] / self.grid.sigma[level])

    def _estimates(self, call: int, history: int) -> tuple[LinearCombination, LinearCombination]:
        """(x0, D): the estimate at this level and the one extrapolated to the middle of the step in lambda.

        First order at the start of a run and on the step that lands on noise-free images, where lambda is infinite.
        """
        x0, _ = self._predict(call)
        if history == 0 or self.grid.sigma[call + 1] == 0:
            return x0, x0
        ratio = (self._lambda(call) - self._lambda(call - 1)) / (self._lambda(call + 1) - self._lambda(call))
        return x0, x0 + (x0 - memory("last")) / (2 * ratio)

    def _decay(self, call: int) -> float:
        """exp(-h), h the step in lambda."""
        (alpha, alpha_next), (sigma, sigma_next) = self.grid.alpha[call : call + 2], self.grid.sigma[call : call + 2]
        return sigma_next * alpha / (alpha_next * sigma)

    def _transfer(self, call: int, sample: LinearCombination, estimate: LinearCombination) -> LinearCombination:
        """The sample at the next level, were x0 constant over the step (eq. 8 with k = 1)."""
        weight = self.grid.alpha[call + 1] * (1 - self._decay(call))
        return self.grid.sigma[call + 1] / self.grid.sigma[call] * sample + weight * estimate


class DPMSolverPP2MScheduler(TwoStepScheduler):
    """Second order, deterministic, one model call per step (algorithm 2)."""

    counterpart = "DPMSolverMultistepScheduler"
    fixed: ClassVar[Mapping[str, object]] = {**SOLVER_LIMITS, "algorithm_type": "dpmsolver++"}

    def _row(self, call: int, history: int, eta: float) -> Row:
        x0, estimate = self._estimates(call, history)
        return {"prev": self._transfer(call, X, estimate), "x0": x0, "last": x0}


class DPMSolverPP2MSDEScheduler(TwoStepScheduler):
    """The same step for the reverse SDE: second order in the mean, exact in the added noise (appendix A, SDE-2M)."""

    counterpart = "DPMSolverMultistepScheduler"
    fixed: ClassVar[Mapping[str, object]] = {**SOLVER_LIMITS, "algorithm_type": "sde-dpmsolver++"}

    def _row(self, call: int, history: int, eta: float) -> Row:
        alpha_next, sigma_next = self.grid.alpha[call + 1], self.grid.sigma[call + 1]
        x0, estimate = self._estimates(call, history)
        decay = self._decay(call)
        mean = sigma_next / self.grid.sigma[call] * decay * X + alpha_next * (1 - decay**2) * estimate
        return {"prev": mean + sigma_next * math.sqrt(1 - decay**2) * NOISE, "x0": x0, "last": x0}
