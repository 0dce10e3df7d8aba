"""Palettes: which colour stands for which class in a coloured label map."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import ImageColor

from latentdiff.errors import InputError
from latentdiff.labels import class_number

Colour = tuple[int, int, int]
Palette = Mapping[Any, Any] | Sequence[Any] | npt.NDArray[Any]


def parse_palette(
    palette: Palette,
    num_classes: int,
    class_names: Sequence[str] | None = None,
    ignore_index: int | None = None,
) -> dict[int, Colour]:
    """A palette as class numbers to colours.

    Args:
        palette: A list or array, of which colour i is that of class i; or a mapping from names or numbers of classes,
            and from `ignore_index`, to colours. A colour is (red, green, blue) from 0 to 255, or a string such as
            "#00ff00".
        num_classes: Number of classes.
        class_names: The name of each class, for palettes that use them.
        ignore_index: The number of pixels of no class; None if there is none.

    Raises:
        InputError: If a class or a colour is not valid, or two classes have the same colour.
    """
    palette = palette.tolist() if isinstance(palette, np.ndarray) else palette
    if isinstance(palette, str) or not isinstance(palette, (Mapping, Sequence)) or not palette:
        raise InputError(f"palette is {palette!r}; give a list of colours, or a mapping from classes to colours")
    items: Iterable[tuple[Any, Any]] = palette.items() if isinstance(palette, Mapping) else enumerate(palette)
    colours: dict[int, Colour] = {}
    for key, value in items:
        ignored = ignore_index is not None and key == ignore_index
        number = key if ignored else class_number(key, num_classes, class_names)
        colour = parse_colour(value)
        taken = next((other for other, known in colours.items() if known == colour), None)
        if taken is not None:
            raise InputError(f"palette gives {colour} to class {taken} and to {number}; give each its own colour")
        colours[number] = colour
    return colours


def parse_colour(colour: Any) -> Colour:
    """(red, green, blue) from 0 to 255 of such a triple or of a string that Pillow knows; InputError if it is none."""
    try:
        values = ImageColor.getrgb(colour)[:3] if isinstance(colour, str) else tuple(colour)
    except (ValueError, TypeError):
        values = ()
    whole = all(not isinstance(v, bool) and hasattr(v, "__index__") and 0 <= v <= 255 for v in values)
    if len(values) != 3 or not whole:
        raise InputError(f"{colour!r} is no colour; give (red, green, blue) from 0 to 255, or a string like '#00ff00'")
    return int(values[0]), int(values[1]), int(values[2])
