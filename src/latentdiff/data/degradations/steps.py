"""The steps of the BSR degradations: blur, resizing, noise and JPEG (Zhang et al. 2021, arXiv 2103.14006, section 3).

A step is a plain value that can be called with a float32 image (H, W, 3) in [0, 1] and returns one.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from PIL import Image

from latentdiff.data.degradations.base import to_float, to_uint8
from latentdiff.data.degradations.resize import resize
from latentdiff.types import Array, Float64Array

SHIFTED_SIZE = 25  # of the kernel that blurs before every sf-th pixel is taken


def anisotropic_kernel(size: int, theta: float, l1: float, l2: float) -> Float64Array:
    """Gaussian kernel (size, size) of variance `l1` along `theta` (radians) and `l2` across; it sums to 1."""
    x = np.arange(size) - (size - 1) / 2
    y = x[:, None]
    along, across = x * np.cos(theta) + y * np.sin(theta), x * np.sin(theta) - y * np.cos(theta)
    exponents = -0.5 * (along * along / l1 + across * across / l2)
    # Relative to the largest: of a narrow Gaussian on an even grid every value would underflow, and the sum be zero.
    kernel: Float64Array = np.exp(exponents - exponents.max())
    kernel /= kernel.sum()
    return kernel


def gaussian_kernel(size: int, sigma: float) -> Float64Array:
    """Isotropic Gaussian kernel (size, size) with sum 1."""
    return anisotropic_kernel(size, 0.0, sigma**2, sigma**2)


def shift_kernel(kernel: Float64Array, sf: int) -> Float64Array:
    """The kernel shifted up and left by (sf - 1) / 2 pixels, so that taking every `sf`-th pixel shifts nothing."""
    places = np.minimum(np.arange(len(kernel)) + (sf - 1) / 2, len(kernel) - 1)
    interpolation = np.maximum(0, 1 - np.abs(places[:, None] - np.arange(len(kernel))))
    shifted: Float64Array = interpolation @ kernel @ interpolation.T
    return shifted


def convolve(image: Array, kernel: Float64Array) -> Array:
    """Convolve each channel of an image (H, W, C), mirrored at its edge pixels; the result is float32.

    The centre of an even kernel is the right one of its middle two pixels. It is computed by FFT in float64, at the
    same cost for all kernels and with rounding errors far below float32's.
    """
    (height, width), size = image.shape[:2], len(kernel)
    before, after = size - 1 - size // 2, size // 2
    padded = np.pad(image.astype(np.float64), ((before, after), (before, after), (0, 0)), mode="reflect")
    shape = padded.shape[:2]
    spectrum = np.fft.rfft2(padded, axes=(0, 1)) * np.fft.rfft2(kernel, shape)[:, :, None]
    full = np.fft.irfft2(spectrum, shape, axes=(0, 1))
    return full[size - 1 : size - 1 + height, size - 1 : size - 1 + width].astype(np.float32)


@dataclass(frozen=True)
class GaussianBlur:
    """Blur that is the same in all directions.

    Attributes:
        size: The side of the kernel, in pixels.
        sigma: The standard deviation, in pixels.
    """

    size: int
    sigma: float

    def __call__(self, image: Array) -> Array:
        """Blur an image."""
        return convolve(image, gaussian_kernel(self.size, self.sigma))


@dataclass(frozen=True)
class AnisotropicBlur:
    """Blur that has a direction.

    Attributes:
        size: The side of the kernel, in pixels.
        theta: The direction, in radians.
        l1: The variance along the direction, in square pixels.
        l2: The variance across it.
    """

    size: int
    theta: float
    l1: float
    l2: float

    def __call__(self, image: Array) -> Array:
        """Blur an image."""
        return convolve(image, anisotropic_kernel(self.size, self.theta, self.l1, self.l2))


@dataclass(frozen=True)
class BlurredStride:
    """Blur with a shifted Gaussian, then every `sf`-th pixel (the paper's nearest-neighbour downsampling).

    Attributes:
        sigma: The standard deviation of the Gaussian, in pixels.
        sf: The scale factor.
    """

    sigma: float
    sf: int

    def __call__(self, image: Array) -> Array:
        """Blur and downsample an image."""
        kernel = shift_kernel(gaussian_kernel(SHIFTED_SIZE, self.sigma), self.sf)
        blurred = convolve(image, kernel / kernel.sum())
        return np.clip(blurred[:: self.sf, :: self.sf], 0, 1)


@dataclass(frozen=True)
class Resize:
    """Resizing, clipped to [0, 1].

    Attributes:
        size: The new (height, width).
        kind: A kernel of `latentdiff.data.degradations.resize`.
    """

    size: tuple[int, int]
    kind: str

    def __call__(self, image: Array) -> Array:
        """Resize an image."""
        return np.clip(resize(image, self.size, self.kind), 0, 1).astype(np.float32)


class NormalSource(Protocol):
    """A source of standard normal numbers, such as `numpy.random.Generator`."""

    def standard_normal(self, size: tuple[int, ...]) -> Float64Array:
        """Numbers of mean 0 and variance 1, in an array of this shape."""


def correlated_mixing(level: float, diagonal: Float64Array, square: Float64Array) -> Float64Array:
    """The (3, 3) matrix that gives independent noise the covariance level**2 * |U^T D U| between channels.

    Args:
        level: The standard deviation, for images in [0, 1].
        diagonal: The diagonal (3,) of D.
        square: A matrix (3, 3); U is an orthonormal basis of its columns.
    """
    basis = np.linalg.svd(square)[0]
    covariance = np.abs(level**2 * basis.T @ np.diag(diagonal) @ basis)
    # |.| may leave a negative eigenvalue; numpy's multivariate_normal takes the root of the singular values, too.
    _, values, directions = np.linalg.svd(covariance)
    mixing: Float64Array = np.sqrt(values)[:, None] * directions
    return mixing


def add_noise(image: Array, mixing: Float64Array, rng: NormalSource) -> Array:
    """Add normal noise to an image (H, W, 3) and clip to [0, 1].

    Args:
        image: The image.
        mixing: The weights (k, 3) of k independent noise fields in the noise of each channel.
        rng: Source of the fields.
    """
    fields = rng.standard_normal((*image.shape[:2], len(mixing)))
    noisy: Array = np.clip(image + (fields @ mixing).astype(np.float32), 0, 1)
    return noisy


@dataclass(frozen=True, eq=False)
class GaussianNoise:
    """Normal noise.

    Attributes:
        mixing: The weights of the noise fields, as in `add_noise`.
        seed: The seed of the noise.
    """

    mixing: Float64Array
    seed: int

    def __call__(self, image: Array) -> Array:
        """Add the noise to an image."""
        return add_noise(image, self.mixing, np.random.default_rng(self.seed))


@dataclass(frozen=True)
class Jpeg:
    """JPEG compression with chroma subsampling (4:2:0).

    Attributes:
        quality: The quality on libjpeg's scale of 1 to 100.
    """

    quality: int

    def __call__(self, image: Array) -> Array:
        """Compress and decode an image."""
        file = io.BytesIO()
        Image.fromarray(to_uint8(image)).save(file, "JPEG", quality=self.quality, subsampling="4:2:0")
        with Image.open(file) as decoded:
            return to_float(np.asarray(decoded))
