"""Drawing the boxes of objects on an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral

from PIL import Image, ImageDraw

from latentdiff.errors import InputError
from latentdiff.io.boxes import parse_box
from latentdiff.io.images import load_image
from latentdiff.io.palettes import Colour
from latentdiff.viz.drawing import class_colour, font, line_height, shorten, text_colour, text_width


def draw_boxes(
    image: Image.Image,
    objects: Sequence[Mapping[str, object]],
    *,
    box_format: str = "xywh",
    image_size: tuple[int, int] | None = None,
    font_size: int = 12,
) -> Image.Image:
    """A copy of the image with a frame for each object, in its class's colour and with its class as a label.

    Args:
        image: The image, of any mode and size; enlarge a small one first, so that labels can be read.
        objects: The objects as `LayoutTokenizer` takes them: {"class": name or number, "box": four numbers}.
        box_format: The format of all boxes, "xywh" or "xyxy"; see `parse_box`.
        image_size: Height and width of the image that boxes in pixels refer to; None if boxes are relative.
        font_size: The size of the labels' font, in pixels.

    Raises:
        InputError: If an object has no class, or its box is not valid.
    """
    picture = load_image(image)
    for number, item in enumerate(objects):
        if not isinstance(item, Mapping) or not {"class", "box"} <= item.keys():
            raise InputError(f"object {number} is {item!r}; give {{'class': ..., 'box': ...}}")
        label = item["class"]
        if not isinstance(label, (str, Integral)):
            raise InputError(f"object {number} has the class {label!r}; give a name or a number")
        box = parse_box(item["box"], box_format, image_size, name=f"box of object {number}")
        corners = [round(value * side) for value, side in zip(box, picture.size * 2, strict=True)]
        _draw(picture, corners, str(label), class_colour(label if isinstance(label, str) else int(label)), font_size)
    return picture


def _draw(picture: Image.Image, corners: list[int], label: str, colour: Colour, font_size: int) -> None:
    draw = ImageDraw.Draw(picture)
    left, top, right, bottom = corners
    thickness = max(1, min(picture.size) // 64)
    last = (max(left, right - 1), max(top, bottom - 1))  # Pillow draws on both corners that it is given
    draw.rectangle([(left, top), last], outline=colour, width=thickness)
    text = shorten(label, picture.width, font_size)
    width = text_width(text, font_size)
    x, y = max(0, min(left, picture.width - width - 2)), max(0, min(top, picture.height - line_height(font_size)))
    draw.rectangle([(x, y), (x + width + 1, y + line_height(font_size) - 1)], fill=colour)
    draw.text((x + 1, y), text, fill=text_colour(colour), font=font(font_size))
