"""Text in pictures, in Pillow's own font."""

from __future__ import annotations

from functools import cache

from PIL import ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@cache
def font(size: int) -> Font:
    """Pillow's built-in font with `size` pixels a line."""
    return ImageFont.load_default(size)


def line_height(size: int) -> int:
    """Pixels from one line of text to the next."""
    return round(size * 1.3)


def text_width(text: str, size: int) -> int:
    """Pixels that one line of text is wide."""
    return int(-(-font(size).getlength(text) // 1))


def fit(text: str, width: int, size: int) -> str:
    """One line of text, its end left out if it is wider than `width` pixels."""
    if text_width(text, size) <= width:
        return text
    while text and text_width(f"{text}…", size) > width:
        text = text[:-1]
    return f"{text}…"


def wrap(text: str, width: int, size: int) -> list[str]:
    """Text in lines of at most `width` pixels, broken between words; a word that is too long is cut."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and text_width(longer, size) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return [fit(line, width, size) for line in lines]
