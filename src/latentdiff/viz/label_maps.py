"""Drawing label maps in colours, with a legend."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from latentdiff.errors import InputError
from latentdiff.io.label_maps import read_label_map
from latentdiff.io.palettes import Colour, Palette, parse_palette
from latentdiff.viz.drawing import class_colour, font, line_height, text_width

IGNORED_COLOUR: Colour = (128, 128, 128)
GAP = 6  # pixels around the legend, and between a colour and its name


def draw_label_map(
    label_map: object,
    num_classes: int,
    *,
    palette: Palette | None = None,
    class_names: Sequence[str] | None = None,
    ignore_index: int | None = None,
    legend: bool = True,
    scale: int = 1,
    font_size: int = 12,
) -> Image.Image:
    """A label map in the colours of its classes, with a legend on its right.

    Args:
        label_map: The label map; see `read_label_map` for what it may be.
        num_classes: Number of classes.
        palette: The colours of the classes; classes without one have that of `class_colour`, ignored pixels are grey.
        class_names: The name of each class; without names the legend has the numbers.
        ignore_index: The label of pixels that belong to no class; None if there is none.
        legend: Whether to draw the legend, which has the classes that are in the map.
        scale: The whole number by which the map is enlarged.
        font_size: The size of the legend's font, in pixels.

    Raises:
        InputError: If the label map can't be read (see `read_label_map`), or the scale is not positive.
    """
    if not isinstance(scale, int) or scale < 1:
        raise InputError(f"scale is {scale!r}; it must be an integer of at least 1")
    numbers = read_label_map(
        label_map, num_classes, palette=palette, class_names=class_names, ignore_index=ignore_index
    ).numpy()
    given = {} if palette is None else parse_palette(palette, num_classes, class_names, ignore_index)
    seen, places = np.unique(numbers, return_inverse=True)
    default = {number: IGNORED_COLOUR if number == ignore_index else class_colour(number) for number in seen.tolist()}
    colours = [given.get(number, colour) for number, colour in default.items()]
    pixels = np.array(colours, np.uint8)[places.reshape(numbers.shape)]
    picture = Image.fromarray(pixels.repeat(scale, 0).repeat(scale, 1))
    if not legend:
        return picture
    names = ["ignored" if n == ignore_index else str(n if class_names is None else class_names[n]) for n in default]
    return _with_legend(picture, list(zip(names, colours, strict=True)), font_size)


def _with_legend(picture: Image.Image, entries: list[tuple[str, Colour]], font_size: int) -> Image.Image:
    step = line_height(font_size)
    width = 3 * GAP + font_size + max(text_width(name, font_size) for name, _ in entries)
    sheet = Image.new("RGB", (picture.width + width, max(picture.height, 2 * GAP + step * len(entries))), "white")
    sheet.paste(picture)
    draw = ImageDraw.Draw(sheet)
    for row, (name, colour) in enumerate(entries):
        x, y = picture.width + GAP, GAP + row * step
        draw.rectangle([(x, y), (x + font_size - 1, y + font_size - 1)], fill=colour)
        draw.text((x + font_size + GAP, y), name, fill="black", font=font(font_size))
    return sheet
