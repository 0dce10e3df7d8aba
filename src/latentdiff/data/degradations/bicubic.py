"""Bicubic downsampling with antialiasing, the degradation of most super-resolution papers."""

from __future__ import annotations

import numpy as np

from latentdiff.data.degradations.base import Array, check_image, check_scale
from latentdiff.data.degradations.resize import resize

SCALES = range(2, 17)


def bicubic(image: Array, rng: np.random.Generator, sf: int = 4) -> Array:
    """MATLAB's imresize(image, 1 / sf); a `Degradation` without randomness: nothing is drawn from `rng`.

    Args:
        image: (H, W, C) of any number of channels, uint8 or float32, with H and W multiples of `sf`.
        rng: Not read; every degradation has it.
        sf: Scale factor of 2 to 16.

    Returns:
        (H / sf, W / sf, C) of the same type; uint8 is rounded and clipped, float32 is not clipped.

    Raises:
        InputError: If the image or the scale factor is none of these.
    """
    check_scale(sf, SCALES)
    check_image(image, sf, ("uint8", "float32"), channels=None)
    small = resize(image, (image.shape[0] // sf, image.shape[1] // sf), "bicubic")
    return small.astype(np.float32) if image.dtype == np.float32 else np.clip(small.round(), 0, 255).astype(np.uint8)
