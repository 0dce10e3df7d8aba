"""Mean and covariance of features, added in float64 in the order of the samples, and the distance of two Gaussians."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch

from latentdiff.bulk.threads import one_thread
from latentdiff.errors import InputError
from latentdiff.types import Array, Float64Array

BLOCK = 256  # rows that are multiplied at once: fixed, as the sum's last bits depend on how it is split


@dataclass(frozen=True)
class Moments:
    """The moments of the features of a set of images.

    Attributes:
        mean: The mean (D,).
        covariance: The unbiased covariance (D, D).
        count: The number of images; None where a file of statistics doesn't say it.
    """

    mean: Float64Array
    covariance: Float64Array
    count: int | None

    def __post_init__(self) -> None:
        if self.mean.ndim != 1 or self.covariance.shape != (self.mean.size, self.mean.size):
            shapes = f"mean {self.mean.shape} and covariance {self.covariance.shape}"
            raise InputError(f"the moments have {shapes}; they must be (D,) and (D, D)")


class MomentSums:
    """Adds up features, however they are split into parts: the result's bits depend on the order of the rows alone.

    Args:
        dim: The number D of features of an image.
    """

    def __init__(self, dim: int) -> None:
        self.count = 0
        self._total, self._products = np.zeros(dim), np.zeros((dim, dim))
        self._waiting = np.empty((BLOCK, dim))  # rows that don't fill a block yet
        self._filled = 0

    def add(self, features: Array) -> None:
        """Add features (N, D) of the next N images.

        Raises:
            InputError: If a feature is infinite or not a number.
        """
        rows = np.asarray(features, np.float64)
        if not np.isfinite(rows).all():
            first = self.count + int(np.flatnonzero(~np.isfinite(rows).all(axis=1))[0])
            raise InputError(f"the features of image {first} are infinite or not a number; compute them in float32")
        while len(rows):
            taken = rows[: BLOCK - self._filled]
            self._waiting[self._filled : self._filled + len(taken)] = taken
            self._filled += len(taken)
            self.count += len(taken)
            rows = rows[len(taken) :]
            if self._filled == BLOCK:
                self._total, self._products = self._sums()
                self._filled = 0

    def moments(self) -> Moments:
        """The moments of what has been added, after which more may be.

        Raises:
            InputError: If that is less than two images.
        """
        if self.count < 2:
            raise InputError(f"{self.count} image is given; a covariance needs at least 2, and a distance thousands")
        total, products = self._sums()
        mean = total / self.count
        return Moments(mean, (products - np.outer(mean, total)) / (self.count - 1), self.count)

    def _sums(self) -> tuple[Float64Array, Float64Array]:
        block = torch.from_numpy(self._waiting[: self._filled])
        with one_thread():
            return self._total + block.sum(dim=0).numpy(), self._products + (block.T @ block).numpy()


def moments_of(parts: Iterable[Array], dim: int) -> Moments:
    """The moments of features (N, D) that come in parts of any length."""
    sums = MomentSums(dim)
    for part in parts:
        sums.add(part)
    return sums.moments()


def frechet(first: Moments, second: Moments) -> float:
    """Squared Fréchet distance of two Gaussians (Dowson & Landau 1982, eq. 4).

    The trace of (S T)^(1/2) is the sum of the singular values of A^T B, where S = A A^T and T = B B^T. Those are exact
    to float64's precision even if the covariances are of low rank, where the eigenvalues of S T, from whose square root
    the trace is mostly computed, are exact to half of its digits.

    Raises:
        InputError: If the moments are of features of different numbers.
    """
    if first.mean.shape != second.mean.shape:
        raise InputError(
            f"one has moments of {first.mean.size} features, the other of {second.mean.size}; "
            "give both the same feature extractor"
        )
    with one_thread():
        a, b = (_root(torch.from_numpy(moments.covariance)) for moments in (first, second))
        shared = float(torch.linalg.svdvals(a.T @ b).sum()) if a.shape[1] and b.shape[1] else 0.0
    shift = float(np.square(first.mean - second.mean).sum())
    return shift + float(np.trace(first.covariance) + np.trace(second.covariance)) - 2 * shared


def _root(covariance: torch.Tensor) -> torch.Tensor:
    """A matrix A of full rank with A A^T = the covariance, as far as float64 can tell."""
    values, vectors = torch.linalg.eigh((covariance + covariance.T) / 2)
    kept = values > values.max() * len(values) * torch.finfo(values.dtype).eps
    root: torch.Tensor = vectors[:, kept] * values[kept].sqrt()
    return root
