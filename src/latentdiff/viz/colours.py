"""Colours of classes, the same in every picture."""

from __future__ import annotations

import colorsys
import zlib

from latentdiff.io.palettes import Colour

GOLDEN_RATIO = 0.618033988749895


def class_colour(label: int | str) -> Colour:
    """The colour of a class without one of its own: steps of the golden ratio keep the hues of small numbers apart."""
    number = zlib.crc32(label.encode()) if isinstance(label, str) else label
    red, green, blue = colorsys.hsv_to_rgb(number * GOLDEN_RATIO % 1, 0.75, (0.95, 0.7)[number % 2])
    return round(255 * red), round(255 * green), round(255 * blue)


def readable_on(colour: Colour) -> str:
    """Black or white, whichever has the larger contrast with the colour (luma of ITU-R BT.601)."""
    return "black" if 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] > 127.5 else "white"
