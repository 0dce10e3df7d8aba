"""Precision, recall, density and coverage: whether images lie among the neighbours of others in feature space.

Squared distances are computed in float64 block by block, so that memory doesn't grow with the square of the number.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from latentdiff.bulk.threads import one_thread
from latentdiff.errors import InputError
from latentdiff.evaluation.distributions import Rows, blocks

NEIGHBOURS = 3
DENSITY_NEIGHBOURS = 5
NOISE = 1e-12  # of the squared lengths: less than this is no distance but rounding, as between equal images


class Manifold(NamedTuple):
    """How well two sets of features cover one another."""

    precision: float
    recall: float


class Fidelity(NamedTuple):
    """How densely samples lie among the reference, and how much of it they reach."""

    density: float
    coverage: float


def precision_recall(samples: Rows, reference: Rows, neighbours: int = NEIGHBOURS) -> Manifold:
    """Improved precision and recall (Kynkäänniemi et al. 2019, eq. 1 and 2).

    Precision is the share of samples that lie in the ball of a reference image, whose radius is the distance to its
    k-th nearest other; recall the same with roles exchanged.

    Args:
        samples: Features of the samples.
        reference: Features of the reference.
        neighbours: k; the paper and ADM take 3.

    Raises:
        InputError: If a side has no k-th neighbour.
    """
    with one_thread():
        return Manifold(
            precision=float((_balls(samples, reference, _radii(reference, neighbours)) > 0).double().mean()),
            recall=float((_balls(reference, samples, _radii(samples, neighbours)) > 0).double().mean()),
        )


def density_coverage(samples: Rows, reference: Rows, neighbours: int = DENSITY_NEIGHBOURS) -> Fidelity:
    """Density and coverage (Naeem et al. 2020, eq. 4 and 5), whose balls are open as in the authors' code.

    Density is the mean number of reference balls that hold a sample, over k; coverage the share of reference balls that
    hold at least one.

    Args:
        samples: Features of the samples.
        reference: Features of the reference.
        neighbours: k; the paper takes 5.

    Raises:
        InputError: If the reference has no k-th neighbour.
    """
    with one_thread():
        radii = _radii(reference, neighbours)
        inside, covered = 0, torch.zeros(len(reference), dtype=torch.bool)
        for x in blocks(samples):
            start = 0
            for y in blocks(reference):
                within = squares_between(x, y) < radii[start : start + len(y)]
                inside += int(within.sum())
                covered[start : start + len(y)] |= within.any(dim=0)
                start += len(y)
    return Fidelity(inside / (neighbours * len(samples)), float(covered.double().mean()))


def squares_between(x: Tensor, y: Tensor) -> Tensor:
    """Squared distances (N, M) of rows (N, D) and (M, D)."""
    lengths = x.square().sum(dim=1)[:, None] + y.square().sum(dim=1)
    squares = lengths - 2 * x @ y.T
    return torch.where(squares > NOISE * lengths, squares, 0.0)


def _radii(rows: Rows, neighbours: int) -> Tensor:
    """The squared distance (N,) of each row to its k-th nearest other."""
    if len(rows) <= neighbours:
        raise InputError(f"{len(rows)} images are given; the {neighbours} nearest others need {neighbours + 1} images")
    radii = []
    for x in blocks(rows):
        nearest = torch.empty(len(x), 0, dtype=x.dtype)
        for y in blocks(rows):
            both = torch.cat([nearest, squares_between(x, y)], dim=1)
            nearest = both.topk(min(neighbours + 1, both.shape[1]), dim=1, largest=False).values
        radii.append(nearest[:, neighbours])  # the nearest is the row itself
    return torch.cat(radii)


def _balls(points: Rows, centres: Rows, radii: Tensor) -> Tensor:
    """The number (N,) of balls around the centres that each point lies in."""
    counts = []
    for x in blocks(points):
        found, start = torch.zeros(len(x), dtype=torch.long), 0
        for y in blocks(centres):
            found += (squares_between(x, y) <= radii[start : start + len(y)]).sum(dim=1)
            start += len(y)
        counts.append(found)
    return torch.cat(counts)
