"""Single filters of OpenCV and Pillow, the other degradations of the latent diffusion code's super-resolution data."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from latentdiff.data.degradations.base import check_image, check_scale_factor
from latentdiff.data.degradations.resize import BICUBIC_SCALES, resize
from latentdiff.types import Array


@dataclass(frozen=True)
class OpenCVFilter:
    """OpenCV's resize, which looks at a fixed number of pixels however much the image shrinks, but for "area".

    Attributes:
        kind: A kernel of `resize`.
    """

    kind: str

    def __call__(self, image: Array, rng: np.random.Generator, sf: int = 4) -> Array:
        """Shrink an RGB image, uint8 (H, W, 3); nothing is drawn. `latentdiff.types.Degradation` has the arguments."""
        check_scale_factor(sf, BICUBIC_SCALES)
        check_image(image, sf)
        small = resize(image, (image.shape[0] // sf, image.shape[1] // sf), self.kind)
        return np.clip(small.round(), 0, 255).astype(np.uint8)


@dataclass(frozen=True)
class PillowFilter:
    """Pillow's resize, whose kernels widen as the image shrinks.

    Attributes:
        kind: The filter.
    """

    kind: Image.Resampling

    def __call__(self, image: Array, rng: np.random.Generator, sf: int = 4) -> Array:
        """Shrink an RGB image, uint8 (H, W, 3); nothing is drawn. `latentdiff.types.Degradation` has the arguments."""
        check_scale_factor(sf, BICUBIC_SCALES)
        check_image(image, sf)
        size = image.shape[1] // sf, image.shape[0] // sf
        return np.array(Image.fromarray(np.ascontiguousarray(image)).resize(size, self.kind))


CV_NEAREST, CV_BILINEAR = OpenCVFilter("nearest"), OpenCVFilter("linear")
CV_BICUBIC, CV_AREA, CV_LANCZOS = OpenCVFilter("cubic"), OpenCVFilter("area"), OpenCVFilter("lanczos")
PIL_NEAREST, PIL_BILINEAR = PillowFilter(Image.Resampling.NEAREST), PillowFilter(Image.Resampling.BILINEAR)
PIL_BICUBIC, PIL_BOX = PillowFilter(Image.Resampling.BICUBIC), PillowFilter(Image.Resampling.BOX)
PIL_HAMMING, PIL_LANCZOS = PillowFilter(Image.Resampling.HAMMING), PillowFilter(Image.Resampling.LANCZOS)
