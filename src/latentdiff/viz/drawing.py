"""Colours and text, the same in every picture."""

from __future__ import annotations

import colorsys
import math
import zlib
from functools import cache

from PIL import ImageFont

from latentdiff.io.palettes import Colour

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

HUE_STEP = 0.618033988749895  # the golden ratio: its multiples modulo 1 keep away from each other
SATURATION, BRIGHTNESSES = 0.75, (0.95, 0.7)  # even numbers are brighter than odd ones


def class_colour(label: int | str) -> Colour:
    """The colour of a class that has none of its own; the hues of small class numbers are far apart."""
    number = zlib.crc32(label.encode()) if isinstance(label, str) else label
    red, green, blue = colorsys.hsv_to_rgb(number * HUE_STEP % 1, SATURATION, BRIGHTNESSES[number % 2])
    return round(255 * red), round(255 * green), round(255 * blue)


def text_colour(background: Colour) -> str:
    """Black or white, whichever has the larger contrast with the background (luma of ITU-R BT.601)."""
    red, green, blue = background
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 127.5 else "white"


@cache
def font(size: int) -> Font:
    """Pillow's built-in font with `size` pixels a line."""
    return ImageFont.load_default(size)


def line_height(size: int) -> int:
    """The pixels from one line of text to the next."""
    return round(size * 1.3)


def text_width(text: str, size: int) -> int:
    """The width in pixels of one line of text."""
    return math.ceil(font(size).getlength(text))


def shorten(text: str, width: int, size: int) -> str:
    """One line of text, cut off with an ellipsis if it is wider than `width` pixels."""
    if text_width(text, size) <= width:
        return text
    while text and text_width(f"{text}…", size) > width:
        text = text[:-1]
    return f"{text}…"


def wrap(text: str, width: int, size: int) -> list[str]:
    """Text in lines of at most `width` pixels, broken between words; a word that is too long is cut off."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and text_width(longer, size) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return [shorten(line, width, size) for line in lines]
