"""What every degradation is: a call that makes the low-resolution image of a pair."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from latentdiff.errors import InputError

Array = npt.NDArray[Any]


class Degradation(Protocol):
    """Makes a low-resolution image; all randomness comes from `rng`, so equal generators give equal images."""

    def __call__(self, image: Array, rng: np.random.Generator, sf: int = 4) -> Array:
        """Degrade one image.

        Args:
            image: RGB, uint8 (H, W, 3), with H and W multiples of `sf`.
            rng: Source of every draw; `latentdiff.seeding.array_generator(seed, index)` makes one.
            sf: Scale factor.

        Returns:
            uint8 (H / sf, W / sf, 3).

        Raises:
            InputError: If the image or the scale factor is not one that this degradation takes.
        """


def check_scale(sf: object, allowed: Sequence[int]) -> None:
    """Raise an InputError unless `sf` is one of the scale factors `allowed`."""
    if isinstance(sf, bool) or not isinstance(sf, int) or sf not in allowed:
        raise InputError(f"scale factor sf is {sf!r}; allowed are {', '.join(map(str, allowed))}")


def check_image(image: object, sf: int, dtypes: Sequence[str] = ("uint8",), channels: int | None = 3) -> None:
    """Raise an InputError unless `image` is an array (H, W, channels) of one of `dtypes` whose sides `sf` divides.

    Args:
        image: What a user gave.
        sf: Scale factor.
        dtypes: Names of the numpy types allowed.
        channels: Number of channels; None allows any but zero.
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
    """Values of [0, 1] as 0 to 255; what lies outside is clipped."""
    return (np.clip(image, 0, 1) * 255).round().astype(np.uint8)


def to_float(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Values of 0 to 255 as [0, 1]."""
    return (image / 255).astype(np.float32)
