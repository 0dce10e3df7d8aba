"""Linear combinations of named tensors: solvers are written with them in float64, and evaluated once per step."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

Terms = tuple[tuple[str, float], ...]


class LinearCombination:
    """A weighted sum of named tensors, for example 0.5 * x - 0.2 * noise; supports +, - and scaling by a number."""

    def __init__(self, weights: Mapping[str, float]) -> None:
        self.weights = dict(weights)

    def __add__(self, other: LinearCombination) -> LinearCombination:
        names = {**self.weights, **other.weights}
        return LinearCombination({name: self.weights.get(name, 0.0) + other.weights.get(name, 0.0) for name in names})

    def __mul__(self, factor: float) -> LinearCombination:
        return LinearCombination({name: factor * weight for name, weight in self.weights.items()})

    __rmul__ = __mul__

    def __sub__(self, other: LinearCombination) -> LinearCombination:
        return self + other * -1.0

    def __truediv__(self, divisor: float) -> LinearCombination:
        return self * (1.0 / divisor)

    def terms(self) -> Terms:
        """The names whose weight is not zero, with their weights."""
        return tuple((name, float(weight)) for name, weight in self.weights.items() if weight != 0)


def evaluate(terms: Terms, known: Mapping[str, Tensor]) -> Tensor:
    """Compute the sum on the tensors' device; a single term of weight 1 is returned itself, not a copy."""
    (name, weight), *rest = terms
    total = known[name] if weight == 1 else known[name] * weight
    for name, weight in rest:
        total = torch.add(total, known[name], alpha=weight)
    return total


X = LinearCombination({"x": 1.0})
"""The sample that `step` is given."""

OUT = LinearCombination({"out": 1.0})
"""The model's output for the sample."""

NOISE = LinearCombination({"noise": 1.0})
"""Fresh standard normal noise."""


def memory(name: str) -> LinearCombination:
    """The tensor that the previous step kept under `name`."""
    return LinearCombination({name: 1.0})


def without_aliases(value: Tensor, known: Mapping[str, Tensor]) -> Tensor:
    """A value to remember: a copy if it is one of the caller's tensors, which may be written to again."""
    return value.clone() if value is known["x"] or value is known["out"] else value
