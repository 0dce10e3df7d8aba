"""Power-function averages of weights, of which any other is put together afterwards (Karras et al. 2024, "EDM2").

The average of exponent g at time t is the integral over tau of w(tau) (g + 1) tau^g / t^(g + 1) from 0 to t (arXiv
2312.02696, eq. 4). Its width sigma_rel is the standard deviation of tau under these weights, relative to t.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np

from latentdiff.errors import ConfigError
from latentdiff.training.engine.options import WIDEST
from latentdiff.types import Float64Array


class Profile(NamedTuple):
    """An average of weights.

    Attributes:
        sigma_rel: Its width.
        updates: The time t, in updates.
    """

    sigma_rel: float
    updates: int


@dataclass(frozen=True)
class Combination:
    """What to add up to come nearest to an average.

    Attributes:
        weights: The factor of each snapshot, (N,).
        error: The root of the squared difference between both profiles, relative to the one that is wanted.
    """

    weights: Float64Array
    error: float


@cache
def exponent(sigma_rel: float) -> float:
    """The exponent g of a width, the inverse of sigma_rel = sqrt(g + 1) / ((g + 2) sqrt(g + 3)) (eq. 127 of the paper).

    Raises:
        ConfigError: If no average has that width.
    """
    if not 0 < sigma_rel < WIDEST:
        raise ConfigError(f"sigma_rel is {sigma_rel:g}; it must be above 0 and below {WIDEST:.4f}, such as 0.1")
    precision = sigma_rel**-2
    return float(np.roots([1, 7, 16 - precision, 12 - precision]).real.max())


def kept(sigma_rel: float, updates: int) -> float:
    """The share of the average that the update number `updates`, from 1, keeps (eq. 128 of the paper)."""
    return float((1 - 1 / updates) ** (exponent(sigma_rel) + 1))


def combine(snapshots: Sequence[Profile], wanted: Profile) -> Combination:
    """The least-squares fit of a profile by those of snapshots (section 3.2 of the paper).

    Raises:
        ConfigError: If there are no snapshots, or a width is not that of an average.
    """
    if not snapshots:
        raise ConfigError("there are no snapshots to combine; give ema.profiles in the recipe")
    products = np.array([[_product(a, b) for b in snapshots] for a in snapshots])
    towards = np.array([_product(a, wanted) for a in snapshots])
    whole = _product(wanted, wanted)
    # Profiles of neighbouring snapshots are nearly alike, so each is brought to unit norm before the system is solved.
    # Its last row, which the paper has not, lets the factors add up to 1: what didn't move is as it was.
    norms = np.sqrt(np.diag(products))
    sums = 1 / norms / np.linalg.norm(1 / norms)
    system = np.block([[products / np.outer(norms, norms), sums[:, None]], [sums[None], np.zeros((1, 1))]])
    goal = np.append(towards / norms, 1 / np.linalg.norm(1 / norms))
    weights = np.linalg.lstsq(system, goal, rcond=1e-13)[0][:-1] / norms
    left = whole - 2 * weights @ towards + weights @ products @ weights
    return Combination(weights, float(np.sqrt(max(left, 0.0) / whole)))


def _product(a: Profile, b: Profile) -> float:
    """The integral of the product of two profiles."""
    powers, times = (exponent(a.sigma_rel), exponent(b.sigma_rel)), (a.updates, b.updates)
    logarithm = (sum(powers) + 1) * np.log(min(times))
    logarithm -= sum((power + 1) * np.log(time) for power, time in zip(powers, times, strict=True))
    return float(np.exp(logarithm) * (powers[0] + 1) * (powers[1] + 1) / (sum(powers) + 1))
