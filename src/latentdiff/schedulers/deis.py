"""DEIS, the diffusion exponential integrator sampler (Zhang & Chen 2022, arXiv 2204.13902)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from diffusers.configuration_utils import register_to_config

from latentdiff.errors import ConfigError
from latentdiff.models.stock_options import with_stock_options
from latentdiff.schedulers.base import Row
from latentdiff.schedulers.linear_combination import LinearCombination, X, memory
from latentdiff.schedulers.noise_schedule import gauss_legendre
from latentdiff.schedulers.sigma import SigmaScheduler
from latentdiff.types import JSON, Float64Array

ORDERS = (2, 3)
SOLVER_TYPES = ("logrho", "t")
SHORT_RUN = 15
OPTIONS = ("solver_order", "solver_type")


class DEISScheduler(SigmaScheduler):
    """Adams-Bashforth DEIS, deterministic, one model call per step.

    With rho = sigma / alpha the probability flow is d(x / alpha) = epsilon d rho (proposition 3 of the paper). The
    noise estimate is taken to be the polynomial through its last two or three values, whose integral is exact. The
    start of a run, where there are fewer values, is of lower order, as are the last steps of a run of fewer than 15.
    The step to noise-free images is of first order with "logrho", as log rho is infinite there.

    Args:
        num_train_timesteps: Number of training timesteps T.
        beta_start: First beta.
        beta_end: Last beta.
        beta_schedule: A name in `noise_schedule.BETA_SCHEDULES`.
        trained_betas: The betas themselves, (T,), instead of the three above.
        solver_order: Number of noise estimates, 2 or 3.
        solver_type: What the polynomial is one of: "t", the timestep, is the paper's tAB-DEIS; "logrho", the logarithm
            of rho, is what diffusers offers.
        prediction_type: "epsilon", "v_prediction", "sample" or "flow_prediction".
        use_karras_sigmas: Whether to take the levels of Karras et al. instead of evenly spaced timesteps.
        timestep_spacing: "linspace", "leading", "trailing" or "original".
        steps_offset: Added to every timestep by "leading" spacing.
        rescale_betas_zero_snr: True to make the last training level (almost) pure noise.
        flow_shift: For a flow_prediction, moves the timesteps of a run towards the noise (above 1) or away from it.
    """

    counterpart = "DEISMultistepScheduler"
    solver_values: ClassVar[dict[str, object]] = {"algorithm_type": "deis", "lower_order_final": True}
    multistep: ClassVar[bool] = True

    @with_stock_options
    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        num_train_timesteps: int = 1000,
        beta_start: float = 0.0001,
        beta_end: float = 0.02,
        beta_schedule: str = "linear",
        trained_betas: Sequence[float] | None = None,
        *,
        solver_order: int = 2,
        solver_type: str = "logrho",
        prediction_type: str = "epsilon",
        use_karras_sigmas: bool = False,
        timestep_spacing: str = "linspace",
        steps_offset: int = 0,
        rescale_betas_zero_snr: bool = False,
        flow_shift: float = 1.0,
    ) -> None:
        if solver_order not in ORDERS:
            raise ConfigError(f"solver_order is {solver_order!r}; choose 2 or 3")
        if solver_type not in SOLVER_TYPES:
            raise ConfigError(f"solver_type is {solver_type!r}; choose logrho or t")
        self._setup()

    @classmethod
    def extract_init_dict(cls, config_dict: JSON, **kwargs: object) -> tuple[JSON, JSON, JSON]:
        """As `TableScheduler.extract_init_dict`, but without the order and the type of another class's solver."""
        if config_dict.get("_class_name") not in (None, cls.__name__, cls.counterpart):
            config_dict = {name: value for name, value in config_dict.items() if name not in OPTIONS}
        return super().extract_init_dict(config_dict, **kwargs)

    def _row(self, call: int, history: int, eta: float) -> Row:
        """Eq. 14 of the paper."""
        x0, noise = self._predict(call)
        noises = [noise, memory("noise1"), memory("noise2")]
        weights = self._weights(call, self._order(call, history))
        change = sum((w * e for w, e in zip(weights, noises, strict=False)), LinearCombination({}))
        kept = {f"noise{age}": noises[age - 1] for age in range(1, min(history + 2, self.config.solver_order))}
        return {"prev": self.grid.alpha[call + 1] * (X / self.grid.alpha[call] + change), "x0": x0, **kept}

    def _order(self, call: int, history: int) -> int:
        """The number of noise estimates that a step uses."""
        remaining = len(self._calls) - call
        order = min(history + 1, int(self.config.solver_order))
        if self.config.solver_type == "logrho" and self.grid.sigma[call + 1] == 0:
            return 1
        return min(order, remaining) if len(self._calls) < SHORT_RUN else order

    def _weights(self, call: int, order: int) -> Float64Array:
        """The integrals over rho of the Lagrange polynomials of the last `order` estimates, (order,)."""
        levels = range(call - order + 1, call + 2)
        rho = np.array([self.grid.sigma[level] / self.grid.alpha[level] for level in levels])[::-1]
        if order == 1:
            return np.array([rho[0] - rho[1]])
        if self.config.solver_type == "logrho":
            nodes, at, widths = _in_log_rho(rho)
        else:
            nodes, at, widths = _in_timesteps(rho, self.schedule.sigmas[self.schedule.first :])
        return np.asarray(lagrange(nodes, at) @ widths)


def _in_log_rho(rho: Float64Array) -> tuple[Float64Array, Float64Array, Float64Array]:
    """Log rho of the estimates, and a quadrature of the step in it.

    Args:
        rho: rho of the level that the step goes to, and of the estimates, newest first.

    Returns:
        The nodes (order,), the points (P,) of the quadrature and their weights (P,), which are widths in rho.
    """
    ends = np.log(rho)
    points, weights = gauss_legendre(24)
    half = (ends[0] - ends[1]) / 2
    at = ends[1] + half * (points + 1)
    return ends[1:], at, half * weights * np.exp(at)


def _in_timesteps(rho: Float64Array, sigmas: Float64Array) -> tuple[Float64Array, Float64Array, Float64Array]:
    """As `_in_log_rho`, in training timesteps.

    Between the training levels, rho is taken to be linear in the timestep, and it is 0 at timestep -1. The quadrature
    is exact for polynomials up to the third degree in each of the pieces.
    """
    table, numbers = np.append(0.0, sigmas), np.arange(-1.0, len(sigmas))
    ends = np.interp(rho, table, numbers)
    edges = np.concatenate([ends[:1], numbers[(numbers > ends[0]) & (numbers < ends[1])], ends[1:2]])
    middles, halves = (edges[1:] + edges[:-1]) / 2, np.diff(edges) / 2
    at = np.concatenate([middles - halves / np.sqrt(3), middles + halves / np.sqrt(3)])
    return ends[1:], at, -np.tile(np.diff(np.interp(edges, numbers, table)) / 2, 2)


def lagrange(nodes: Float64Array, at: Float64Array) -> Float64Array:
    """The values (N, P) of the Lagrange polynomials of `nodes` (N,) at points (P,)."""
    values = [
        np.prod([(at - other) / (node - other) for other in nodes if other != node], axis=0, initial=1.0)
        for node in nodes
    ]
    return np.stack(values)
