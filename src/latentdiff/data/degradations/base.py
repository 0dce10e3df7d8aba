"""Checks of a degradation's arguments, and the conversion between bytes and floats."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from latentdiff.errors import InputError
from latentdiff.types import Array, Float32Array


def check_scale_factor(sf: object, allowed: Sequence[int]) -> None:
    """InputError unless `sf` is one of the scale factors `allowed`."""
    if isinstance(sf, bool) or not isinstance(sf, int) or sf not in allowed:
        raise InputError(f"scale factor sf is {sf!r}; allowed are {', '.join(map(str, allowed))}")


def check_image(image: object, sf: int, dtypes: Sequence[str] = ("uint8",), channels: int | None = 3) -> None:
    """Check that an image can be degraded.

    Args:
        image: The image that a user gave.
        sf: The scale factor, which must divide the image's sides.
        dtypes: The names of the numpy types that are allowed.
        channels: The number of channels; None for any but zero.

    Raises:
        InputError: Unless it is an array (H, W, channels) of one of the types, whose sides `sf` divides.
    """
    wanted = f"an array of {' or '.join(dtypes)}, (H, W, {channels or 'C'})"
    if not isinstance(image, np.ndarray):
        raise InputError(f"the image is a {type(image).__name__}; give {wanted}")
    fits = image.ndim == 3 and channels in (None, image.shape[2])
    if not fits or image.size == 0 or image.dtype.name not in dtypes:
        raise InputError(f"the image is {image.dtype} of shape {image.shape}; give {wanted}")
    height, width = image.shape[:2]
    if height < sf or width < sf:
        raise InputError(f"the image is {width}x{height} pixels; at scale factor {sf} it needs {sf}x{sf} or more")
    if height % sf or width % sf:
        crop = f"{width - width % sf}x{height - height % sf}"
        raise InputError(f"the image is {width}x{height} pixels; sides must be multiples of {sf}, crop it to {crop}")


def to_uint8(image: Array) -> npt.NDArray[np.uint8]:
    """An image in [0, 1] as numbers from 0 to 255; what lies outside is clipped."""
    return (np.clip(image, 0, 1) * 255).round().astype(np.uint8)


def to_float(image: npt.NDArray[np.uint8]) -> Float32Array:
    """An image of numbers from 0 to 255 in [0, 1]."""
    return (image / 255).astype(np.float32)
