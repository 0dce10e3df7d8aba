"""Many images in one: grids with captions, and reconstructions beside their originals."""

from __future__ import annotations

import math
from collections.abc import Sequence

from PIL import Image, ImageChops, ImageDraw

from latentdiff.errors import InputError
from latentdiff.io.images import load_image
from latentdiff.viz.drawing import font, line_height, text_width, wrap


def image_grid(
    images: Sequence[Image.Image],
    *,
    columns: int | None = None,
    captions: Sequence[str] | None = None,
    scale: int = 1,
    margin: int = 0,
    font_size: int = 12,
) -> Image.Image:
    """Images in rows on white, each in the middle of a cell as large as the largest image.

    Args:
        images: The images from left to right, row by row; of any mode and size.
        columns: Number of images in a row; by default about as many as there are rows.
        captions: A text under each image, in as many lines as it needs.
        scale: The whole number by which images are enlarged, without smoothing.
        margin: Pixels around each image.
        font_size: The size of the captions' font, in pixels.

    Raises:
        InputError: If there are no images, the captions are not one for each image, or a number is not positive.
    """
    for name, value, least in (
        ("columns", columns, 1),
        ("scale", scale, 1),
        ("margin", margin, 0),
        ("font_size", font_size, 1),
    ):
        if value is not None and (not isinstance(value, int) or value < least):
            raise InputError(f"{name} is {value!r}; it must be an integer of at least {least}")
    if not images:
        raise InputError("images is empty; give at least one")
    if captions is not None and len(captions) != len(images):
        raise InputError(f"{len(captions)} captions are given for {len(images)} images; give one each")
    shown = [_enlarged(load_image(image, f"image {number}"), scale) for number, image in enumerate(images)]
    columns = columns or math.ceil(math.sqrt(len(shown)))
    width, height = max(image.width for image in shown), max(image.height for image in shown)
    texts = [wrap(caption, width, font_size) for caption in captions or [""] * len(shown)]
    text_height = line_height(font_size) * max(len(lines) for lines in texts)
    step_x, step_y = width + margin, height + text_height + margin
    rows = math.ceil(len(shown) / columns)
    sheet = Image.new("RGB", (columns * step_x + margin, rows * step_y + margin), "white")
    draw = ImageDraw.Draw(sheet)
    for number, (image, lines) in enumerate(zip(shown, texts, strict=True)):
        row, column = divmod(number, columns)
        x, y = margin + column * step_x, margin + row * step_y
        sheet.paste(image, (x + (width - image.width) // 2, y + (height - image.height) // 2))
        for line in lines:
            middle = x + (width - text_width(line, font_size)) // 2
            draw.text((middle, y + height), line, fill="black", font=font(font_size))
            y += line_height(font_size)
    return sheet


def side_by_side(
    originals: Sequence[Image.Image],
    reconstructions: Sequence[Image.Image],
    *,
    gain: int = 4,
    scale: int = 1,
    margin: int = 4,
) -> Image.Image:
    """A row for each image: the original, its reconstruction, and their absolute difference.

    Args:
        originals: The originals.
        reconstructions: The reconstruction of each, of the same size.
        gain: The factor by which the difference is multiplied to make it visible; equal pixels are black.
        scale: The whole number by which images are enlarged, without smoothing.
        margin: Pixels around each image.

    Raises:
        InputError: If there is not one reconstruction of equal size for each image.
    """
    if len(originals) != len(reconstructions):
        raise InputError(f"{len(reconstructions)} reconstructions are given for {len(originals)} images; give one each")
    cells = []
    for number, pair in enumerate(zip(originals, reconstructions, strict=True)):
        first, second = (load_image(image, f"image {number}") for image in pair)
        if first.size != second.size:
            sizes = [f"{image.width}x{image.height}" for image in (first, second)]
            raise InputError(f"image {number} is {sizes[0]} pixels, its reconstruction {sizes[1]}; give equal sizes")
        difference = ImageChops.difference(first, second).point(lambda value: min(255, value * gain))
        cells += [first, second, difference]
    captions = ["original", "reconstruction", f"difference x {gain}"] * len(originals)
    return image_grid(cells, columns=3, captions=captions, scale=scale, margin=margin)


def _enlarged(image: Image.Image, scale: int) -> Image.Image:
    return image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)
