"""Degradations, which make the low-resolution image of a pair; the registry `DEGRADATIONS` has their names."""

from latentdiff.registry import DEGRADATIONS
from latentdiff.seeding import array_generator, check_seed
from latentdiff.types import Array, Degradation

__all__ = ["Degradation", "degrade"]


def degrade(image: Array, degradation: str | Degradation, sf: int = 4, *, seed: int, index: int = 0) -> Array:
    """The low-resolution image number `index` of a data set, as a function of nothing but the arguments.

    Args:
        image: The image, RGB, uint8 (H, W, 3), with H and W multiples of `sf`.
        degradation: A name in the registry `DEGRADATIONS`, or a degradation.
        sf: The scale factor.
        seed: The seed of the data set.
        index: The number of the image, or that of the visit to it if every epoch is to degrade it anew.

    Returns:
        The small image, uint8 (H / sf, W / sf, 3).

    Raises:
        ConfigError: If no degradation has this name.
        InputError: If the image, scale factor, seed or index is not valid.
    """
    method = DEGRADATIONS.get(degradation) if isinstance(degradation, str) else degradation
    return method(image, array_generator(check_seed(seed), check_seed(index, "index")), sf)
