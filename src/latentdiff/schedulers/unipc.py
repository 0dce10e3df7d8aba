"""UniPC, the unified predictor-corrector (Zhao et al. 2023, arXiv 2302.04867)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from latentdiff.schedulers.base import Row
from latentdiff.schedulers.dpmpp import TwoStepScheduler
from latentdiff.schedulers.linear_combination import LinearCombination, X, memory


class UniPCScheduler(TwoStepScheduler):
    """UniPC-2 on x0 with B_2(h) = e^h - 1: third order, deterministic, one model call per step.

    The predictor is that of DPM-Solver++ 2M. Every model call also corrects the sample that it was made for
    (algorithm 1 of the paper), which costs no further call and raises the order by one.
    """

    counterpart = "UniPCMultistepScheduler"
    solver_values: ClassVar[Mapping[str, object]] = {
        "solver_order": 2,
        "solver_type": "bh2",
        "predict_x0": True,
        "lower_order_final": True,
        "disable_corrector": [],
        "solver_p": None,
    }

    def _row(self, call: int, history: int, eta: float) -> Row:
        x0, estimate = self._estimates(call, history)
        sample = self._corrected(call, history, x0) if history else X
        older = {"before": memory("last")} if history else {}
        return {"prev": self._transfer(call, sample, estimate), "x0": x0, "sample": sample, "last": x0, **older}

    def _corrected(self, call: int, history: int, x0: LinearCombination) -> LinearCombination:
        """The result of the previous step, computed again now that the x0 estimate at its end is known."""
        last = memory("last")
        if history == 1:
            return self._transfer(call - 1, memory("sample"), 0.5 * (last + x0))
        h = self._lambda(call) - self._lambda(call - 1)
        ratio = (self._lambda(call - 2) - self._lambda(call - 1)) / h
        older, newer = corrector_weights(h, 1 - self._decay(call - 1), ratio)
        estimate = last + older / ratio * (memory("before") - last) + newer * (x0 - last)
        return self._transfer(call - 1, memory("sample"), estimate)


def corrector_weights(h: float, gain: float, ratio: float) -> tuple[float, float]:
    """Weights of the older and the newer difference: R_2 a = phi_2 / B_2 of the paper's theorem 3.1, for x0 prediction.

    Args:
        h: The step in lambda.
        gain: The value 1 - exp(-h).
        ratio: The distance in lambda from the current to the older level, in units of h; negative.
    """
    first = 1 / gain - 1 / h
    second = (1 - 2 * (1 - gain / h) / h) / gain
    older = (first - second) / (1 - ratio)
    return older, first - older
