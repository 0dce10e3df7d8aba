"""Gaussian noise and JPEG compression of the BSR degradations (Zhang et al. 2021, arXiv 2103.14006, section 3.3)."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from PIL import Image

from latentdiff.data.degradations.base import Array, to_float, to_uint8
from latentdiff.data.degradations.resize import Floats


class NormalSource(Protocol):
    """What draws standard normal values, such as `numpy.random.Generator`."""

    def standard_normal(self, size: tuple[int, ...]) -> Floats:
        """Values of mean 0 and variance 1, in an array of this shape."""


def correlated_mixing(level: float, diagonal: Floats, square: Floats) -> Floats:
    """The (3, 3) matrix that gives independent noise the covariance level**2 * |U^T D U| between channels.

    Args:
        level: Standard deviation on the scale of [0, 1].
        diagonal: (3,), the diagonal of D.
        square: (3, 3); U is an orthonormal basis of its columns.
    """
    basis = np.linalg.svd(square)[0]
    covariance = np.abs(level**2 * basis.T @ np.diag(diagonal) @ basis)
    # |.| may leave a negative eigenvalue; singular values are what numpy's multivariate_normal takes the root of too.
    _, values, directions = np.linalg.svd(covariance)
    mixing: Floats = np.sqrt(values)[:, None] * directions
    return mixing


def add_noise(image: Array, mixing: Floats, rng: NormalSource) -> Array:
    """Add normal noise to (H, W, 3) and clip to [0, 1]; `mixing` (k, 3) is a channel's share of each of k fields."""
    fields = rng.standard_normal((*image.shape[:2], len(mixing)))
    noisy: Array = np.clip(image + (fields @ mixing).astype(np.float32), 0, 1)
    return noisy


@dataclass(frozen=True, eq=False)
class GaussianNoise:
    """A step that adds noise drawn from its own `seed`."""

    mixing: Floats
    seed: int

    def __call__(self, image: Array) -> Array:
        """Apply the step to float32 (H, W, 3) in [0, 1]."""
        return add_noise(image, self.mixing, np.random.default_rng(self.seed))


@dataclass(frozen=True)
class Jpeg:
    """A step that compresses as JPEG, chroma halved, at `quality` on libjpeg's scale of 1 to 100."""

    quality: int

    def __call__(self, image: Array) -> Array:
        """Apply the step to float32 (H, W, 3) in [0, 1]."""
        file = io.BytesIO()
        Image.fromarray(to_uint8(image)).save(file, "JPEG", quality=self.quality, subsampling="4:2:0")
        with Image.open(file) as decoded:
            return to_float(np.asarray(decoded))
