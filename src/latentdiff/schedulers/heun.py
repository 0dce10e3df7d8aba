"""Heun's method on the probability-flow ODE (Karras et al. 2022, arXiv 2206.00364, algorithm 1)."""

from __future__ import annotations

from collections.abc import Sequence

from latentdiff.schedulers.base import Row
from latentdiff.schedulers.euler import VarianceExplodingScheduler
from latentdiff.schedulers.linear_combination import X, memory


class HeunScheduler(VarianceExplodingScheduler):
    """Second order, deterministic, two model calls per step: `timesteps` holds every timestep but the first twice.

    The last step, to sigma 0, is Euler's. A run that starts at the second call of a step leaves the sample unchanged in
    that call.
    """

    counterpart = "HeunDiscreteScheduler"
    order = 2

    def _call_levels(self, count: int) -> Sequence[int]:
        return [(call + 1) // 2 for call in range(2 * count - 1)]

    def _row(self, call: int, history: int, eta: float) -> Row:
        level = self._calls[call - call % 2]
        width = self._sigma(level + 1) - self._sigma(level)
        if call % 2 == 0:
            x0, slope = self._slope(level)
            return {"prev": X + width * slope, "x0": x0, "start": X, "slope": slope}
        x0, slope = self._slope(level + 1)
        if history == 0:
            return {"prev": X, "x0": x0}
        return {"prev": memory("start") + width / 2 * (memory("slope") + slope), "x0": x0}
