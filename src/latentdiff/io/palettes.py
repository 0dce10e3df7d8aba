"""Palettes, which give each class a colour in coloured label maps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from PIL import ImageColor

from latentdiff.errors import InputError
from latentdiff.labels import class_number

if TYPE_CHECKING:
    from latentdiff.types import Array

Colour = tuple[int, int, int]
"""(red, green, blue) from 0 to 255."""

ColourLike = str | Sequence[int]
"""A colour as a user may give it; see `parse_colour`."""

Palette: TypeAlias = "Mapping[str, ColourLike] | Mapping[int, ColourLike] | Sequence[ColourLike] | Array"
"""A palette as a user may give it; see `parse_palette`."""


def parse_palette(
    palette: Palette,
    num_classes: int,
    class_names: Sequence[str] | None = None,
    ignore_index: int | None = None,
) -> dict[int, Colour]:
    """Read a palette as a mapping from class numbers to colours.

    Args:
        palette: A list or array, in which colour i is that of class i; or a mapping from names or numbers of classes,
            and from `ignore_index`, to colours. A colour is (red, green, blue) from 0 to 255, or a string such as
            "#00ff00".
        num_classes: Number of classes.
        class_names: The name of each class, for palettes that use names.
        ignore_index: The label of pixels that belong to no class; None if there is none.

    Raises:
        InputError: If a class or a colour is not valid, or two classes have the same colour.
    """
    palette = palette.tolist() if isinstance(palette, np.ndarray) else palette
    if isinstance(palette, str) or not isinstance(palette, (Mapping, Sequence)) or not palette:
        raise InputError(f"palette is {palette!r}; give a list of colours, or a mapping from classes to colours")
    items: Iterable[tuple[object, object]] = palette.items() if isinstance(palette, Mapping) else enumerate(palette)
    colours: dict[int, Colour] = {}
    for key, value in items:
        if ignore_index is not None and key == ignore_index:
            number = ignore_index
        else:
            number = class_number(key, num_classes, class_names)
        colour = parse_colour(value)
        taken = next((other for other, known in colours.items() if known == colour), None)
        if taken is not None:
            raise InputError(f"palette gives {colour} to class {taken} and to {number}; give each its own colour")
        colours[number] = colour
    return colours


def parse_colour(colour: object) -> Colour:
    """Read a colour: three integers from 0 to 255, or a string that Pillow knows.

    Raises:
        InputError: If it is neither.
    """
    values: Sequence[int] = ()
    with suppress(ValueError, TypeError):
        if isinstance(colour, str):
            values = ImageColor.getrgb(colour)[:3]
        elif isinstance(colour, Iterable):
            values = tuple(colour)
    whole = all(not isinstance(v, bool) and hasattr(v, "__index__") and 0 <= v <= 255 for v in values)
    if len(values) != 3 or not whole:
        raise InputError(
            f"{colour!r} is not a colour; give (red, green, blue) from 0 to 255, or a string like '#00ff00'"
        )
    return int(values[0]), int(values[1]), int(values[2])
