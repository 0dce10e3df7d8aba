"""Degradations, which make the low-resolution image of a pair; the registry `DEGRADATIONS` names them."""

from latentdiff.data.degradations.base import Array, Degradation
from latentdiff.registry import DEGRADATIONS
from latentdiff.seeding import array_generator, check_seed

__all__ = ["Degradation", "degrade"]


def degrade(image: Array, degradation: str | Degradation, sf: int = 4, *, seed: int, index: int = 0) -> Array:
    """The low-resolution image number `index` of a data set: a function of its arguments only.

    Args:
        image: RGB, uint8 (H, W, 3), with H and W multiples of `sf`.
        degradation: A name of the registry `DEGRADATIONS`, or a degradation.
        sf: Scale factor.
        seed: Of the data set.
        index: Of the image, or of the visit to it where each epoch shall degrade anew.

    Returns:
        uint8 (H / sf, W / sf, 3).

    Raises:
        ConfigError: If no degradation has this name.
        InputError: If the image, scale factor, seed or index is not valid.
    """
    method: Degradation = DEGRADATIONS.get(degradation) if isinstance(degradation, str) else degradation
    return method(image, array_generator(check_seed(seed), check_seed(index, "index")), sf)
