"""BSR and BSR-light: shuffled blur, downsampling, noise and JPEG (Zhang et al. 2021, arXiv 2103.14006).

The ranges are those of the authors' code as the latent diffusion code runs it: without the camera model, and with
milder values for BSR-light. An image is degraded in two phases: `plan` draws the steps, which are plain values that can
be inspected, and then they are applied one after the other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from latentdiff.data.degradations.base import check_image, check_scale_factor, to_float, to_uint8
from latentdiff.data.degradations.resize import OPENCV_KINDS
from latentdiff.data.degradations.steps import (
    AnisotropicBlur,
    BlurredStride,
    GaussianBlur,
    GaussianNoise,
    Jpeg,
    Resize,
    correlated_mixing,
)
from latentdiff.types import Array

Step = Callable[[Array], Array]
"""A step of a degradation: from a float32 image (h, w, 3) in [0, 1] to another."""

HALVING_PROBABILITY = 0.25
JPEG_PROBABILITY = 0.9


@dataclass(frozen=True)
class BSR:
    """A degradation of the BSR family, for scale factors 2, 3 and 4.

    Args:
        blurs: Number of blurs.
        anisotropic_sizes: Kernel sizes of blurs with a direction, which are half of all.
        isotropic_sizes: Kernel sizes of the other blurs.
        spread: Factor on the paper's widths, which are variances up to 4 + sf and standard deviations up to 2 + sf / 5.
        resize_probability: Probability of downsampling by a random factor; otherwise it is by a shifted Gaussian and a
            stride.
        noise_levels: Least and greatest standard deviation of the noise, for grey levels from 0 to 255.
        jpeg_qualities: Least and greatest quality of the JPEG compressions.
    """

    blurs: int
    anisotropic_sizes: range
    isotropic_sizes: range
    spread: float
    resize_probability: float
    noise_levels: tuple[int, int]
    jpeg_qualities: tuple[int, int]

    def __call__(self, image: Array, rng: np.random.Generator, sf: int = 4) -> Array:
        """Degrade an RGB image; `latentdiff.types.Degradation` describes the arguments."""
        check_scale_factor(sf, (2, 3, 4))
        check_image(image, sf)
        result: Array = to_float(image)
        for step in self.plan(rng, (image.shape[0], image.shape[1]), sf):
            result = step(result)
        return to_uint8(result)

    def plan(self, rng: np.random.Generator, size: tuple[int, int], sf: int) -> list[Step]:
        """Draw the steps for an image of `size` = (H, W)."""
        steps: list[Step] = []
        if sf == 4 and rng.random() < HALVING_PROBABILITY:
            size, sf = (size[0] // 2, size[1] // 2), 2
            steps.append(Resize(size, "bicubic" if rng.random() < 0.5 else _opencv_kind(rng)))
        order = rng.permutation(["blur"] * self.blurs + ["downsample", "fit", "noise", "jpeg"]).tolist()
        # The resizing to the final size comes after the downsampling.
        first, second = sorted((order.index("downsample"), order.index("fit")))
        order[first], order[second] = "downsample", "fit"
        for name in order:
            if name == "blur":
                steps.append(self._blur(rng, sf))
            elif name == "downsample":
                steps.append(self._downsample(rng, size, sf))
            elif name == "fit":
                steps.append(Resize((size[0] // sf, size[1] // sf), _opencv_kind(rng)))
            elif name == "noise":
                steps.append(self._noise(rng))
            elif rng.random() < JPEG_PROBABILITY:
                steps.append(self._jpeg(rng))
        return [*steps, self._jpeg(rng)]

    def _blur(self, rng: np.random.Generator, sf: int) -> Step:
        u, v = 1 - rng.random(2)  # in (0, 1], since a Gaussian of width 0 is not possible
        if rng.random() < 0.5:
            width = self.spread * (4 + sf)
            size = int(rng.choice(self.anisotropic_sizes))
            return AnisotropicBlur(size, rng.random() * np.pi, width * u, width * v)
        return GaussianBlur(int(rng.choice(self.isotropic_sizes)), self.spread * (2 + 0.2 * sf) * u)

    def _downsample(self, rng: np.random.Generator, size: tuple[int, int], sf: int) -> Step:
        if rng.random() < self.resize_probability:
            factor = rng.uniform(1, 2 * sf)
            return Resize((max(1, int(size[0] / factor)), max(1, int(size[1] / factor))), _opencv_kind(rng))
        return BlurredStride(rng.uniform(0.1, 0.6 * sf), sf)

    def _noise(self, rng: np.random.Generator) -> Step:
        level, greatest = rng.integers(*self.noise_levels, endpoint=True) / 255, self.noise_levels[1] / 255
        kind, seed = rng.random(), int(rng.integers(2**63))
        if kind > 0.6:
            return GaussianNoise(level * np.eye(3), seed)  # independent noise in each channel
        if kind < 0.4:
            return GaussianNoise(level * np.ones((1, 3)), seed)  # the same noise in all channels
        return GaussianNoise(correlated_mixing(greatest, rng.random(3), rng.random((3, 3))), seed)

    def _jpeg(self, rng: np.random.Generator) -> Step:
        return Jpeg(int(rng.integers(*self.jpeg_qualities, endpoint=True)))


def _opencv_kind(rng: np.random.Generator) -> str:
    return str(rng.choice(OPENCV_KINDS))


BSR_LIGHT = BSR(
    blurs=1,
    anisotropic_sizes=range(5, 15),
    isotropic_sizes=range(5, 8),
    spread=0.25,
    resize_probability=0.8,
    noise_levels=(1, 2),
    jpeg_qualities=(80, 95),
)
BSR_FULL = BSR(
    blurs=2,
    anisotropic_sizes=range(7, 26, 2),
    isotropic_sizes=range(7, 26, 2),
    spread=1.0,
    resize_probability=0.75,
    noise_levels=(2, 25),
    jpeg_qualities=(30, 95),
)
