"""Gaussian blur kernels of the BSR degradations (Zhang et al. 2021, arXiv 2103.14006, section 3.1)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from latentdiff.data.degradations.base import Array
from latentdiff.data.degradations.resize import Floats

SHIFTED_SIZE = 25


def anisotropic_kernel(size: int, theta: float, l1: float, l2: float) -> Floats:
    """Kernel (size, size) that sums to 1, of variance `l1` along the direction `theta` (radians) and `l2` across."""
    x = np.arange(size) - (size - 1) / 2
    y = x[:, None]
    along, across = x * np.cos(theta) + y * np.sin(theta), x * np.sin(theta) - y * np.cos(theta)
    exponents = -0.5 * (along * along / l1 + across * across / l2)
    # Relative to the largest: of a narrow Gaussian on an even grid every value would underflow, and the sum be zero.
    kernel: Floats = np.exp(exponents - exponents.max())
    kernel /= kernel.sum()
    return kernel


def gaussian_kernel(size: int, sigma: float) -> Floats:
    """Isotropic kernel (size, size) that sums to 1."""
    return anisotropic_kernel(size, 0.0, sigma**2, sigma**2)


def shift_kernel(kernel: Floats, sf: int) -> Floats:
    """The kernel read (sf - 1) / 2 pixels further down and right, so that taking each `sf`-th pixel shifts nothing."""
    places = np.minimum(np.arange(len(kernel)) + (sf - 1) / 2, len(kernel) - 1)
    reading = np.maximum(0, 1 - np.abs(places[:, None] - np.arange(len(kernel))))
    shifted: Floats = reading @ kernel @ reading.T
    return shifted


def convolve(image: Array, kernel: Floats) -> Array:
    """Convolve each channel of (H, W, C), mirrored at its edge pixels; float32.

    An even kernel's centre is the right one of the middle two. By FFT in float64: one cost for all kernels, and
    rounding errors far below float32's.
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
    """A step that blurs alike in all directions; `sigma` in pixels."""

    size: int
    sigma: float

    def __call__(self, image: Array) -> Array:
        """Apply the step to float32 (H, W, 3) in [0, 1]."""
        return convolve(image, gaussian_kernel(self.size, self.sigma))


@dataclass(frozen=True)
class AnisotropicBlur:
    """A step that blurs along `theta` with variance `l1` and across it with `l2`, in square pixels."""

    size: int
    theta: float
    l1: float
    l2: float

    def __call__(self, image: Array) -> Array:
        """Apply the step to float32 (H, W, 3) in [0, 1]."""
        return convolve(image, anisotropic_kernel(self.size, self.theta, self.l1, self.l2))


@dataclass(frozen=True)
class BlurredStride:
    """A step that blurs with a shifted Gaussian and keeps each `sf`-th pixel (the paper's nearest downsampling)."""

    sigma: float
    sf: int

    def __call__(self, image: Array) -> Array:
        """Apply the step to float32 (H, W, 3) in [0, 1]."""
        kernel = shift_kernel(gaussian_kernel(SHIFTED_SIZE, self.sigma), self.sf)
        blurred = convolve(image, kernel / kernel.sum())
        return np.clip(blurred[:: self.sf, :: self.sf], 0, 1)
