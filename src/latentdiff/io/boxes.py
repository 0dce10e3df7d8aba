"""Boxes of objects: reading a user's boxes as corners, and clipping and mirroring corners."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from latentdiff.errors import InputError
from latentdiff.registry import nearest

Corners = tuple[float, float, float, float]
"""(left, top, right, bottom)."""

WHOLE: Corners = (0.0, 0.0, 1.0, 1.0)  # the box of the whole image
BOX_FORMATS = {"xywh": "(x, y, width, height)", "xyxy": "(left, top, right, bottom)"}
TOLERANCE = 1e-4  # as a share of the side, since annotations are rounded: to a hundredth of a pixel in COCO


def parse_box(
    box: object, box_format: str = "xywh", image_size: tuple[int, int] | None = None, *, name: str = "box"
) -> Corners:
    """The corners (left, top, right, bottom) of a box, relative to the image, from 0 to 1.

    Args:
        box: The box, four numbers.
        box_format: The meaning of the numbers: "xywh" is left, top, width and height, "xyxy" is left, top, right and
            bottom.
        image_size: Height and width of the image if the box is in pixels, as in COCO; None if it is relative.
        name: The name of the box in errors.

    Raises:
        InputError: If the box isn't four finite numbers, is empty or inverted, or reaches out of the image by more than
            a rounding error; or the format or size is not valid.
    """
    if box_format not in BOX_FORMATS:
        raise InputError(f"box_format is {box_format!r}; {nearest(box_format, BOX_FORMATS)}")
    height, width = _check_size(image_size)
    try:
        numbers = tuple(float(number) for number in box) if isinstance(box, Iterable) else ()
    except (TypeError, ValueError):
        numbers = ()
    if len(numbers) != 4 or isinstance(box, str) or not all(map(math.isfinite, numbers)):
        raise InputError(f"{name} is {box!r}; give four finite numbers {BOX_FORMATS[box_format]}")
    given = f"{name} is ({', '.join(f'{number:g}' for number in numbers)}) as {BOX_FORMATS[box_format]}"
    x, y, right, bottom = (number / side for number, side in zip(numbers, (width, height, width, height), strict=True))
    if box_format == "xywh":
        right, bottom = x + right, y + bottom
    if right <= x or bottom <= y:
        raise InputError(f"{given}, which is empty or inverted; its sides must be longer than 0")
    if min(x, y) < -TOLERANCE or max(right, bottom) > 1 + TOLERANCE:
        inside = f"{width}x{height} pixels" if image_size else "0 to 1; for boxes in pixels give image_size"
        raise InputError(f"{given}, which reaches out of the image ({inside}); clip it")
    return max(x, 0.0), max(y, 0.0), min(right, 1.0), min(bottom, 1.0)


def _check_size(image_size: object) -> tuple[int, int]:
    """Height and width in the unit of a box: those of the image in pixels, or 1 and 1 if there is no size."""
    if image_size is None:
        return 1, 1
    sides = image_size if isinstance(image_size, Sequence) else ()
    if len(sides) != 2 or not all(hasattr(side, "__index__") and side > 0 for side in sides):
        raise InputError(f"image_size is {image_size!r}; give the image's height and width in pixels, or None")
    return int(sides[0]), int(sides[1])


def mirror(box: Corners) -> Corners:
    """The same box in the image flipped from left to right."""
    return 1 - box[2], box[1], 1 - box[0], box[3]


def turn(box: Corners, orientation: int) -> Corners:
    """A relative box in an image as its file stores it, as a box in the image turned upright.

    Args:
        box: The box, relative to the image as stored.
        orientation: The EXIF orientation, 1 to 8, which says how the stored image is to be turned.
    """
    left, top, right, bottom = box
    return {
        2: (1 - right, top, 1 - left, bottom),
        3: (1 - right, 1 - bottom, 1 - left, 1 - top),
        4: (left, 1 - bottom, right, 1 - top),
        5: (top, left, bottom, right),
        6: (1 - bottom, left, 1 - top, right),
        7: (1 - bottom, 1 - right, 1 - top, 1 - left),
        8: (top, 1 - right, bottom, 1 - left),
    }.get(orientation, box)


def overlap(a: Corners, b: Corners) -> bool:
    """Whether two boxes share an area."""
    return min(a[2], b[2]) > max(a[0], b[0]) and min(a[3], b[3]) > max(a[1], b[1])


def clip(box: Corners, area: Corners) -> Corners | None:
    """The part of a box that lies inside `area`, relative to `area`; None if there is none."""
    if not overlap(box, area):
        return None
    width, height = area[2] - area[0], area[3] - area[1]
    left, top, right, bottom = (
        (value - start) / side
        for value, start, side in zip(box, area[:2] * 2, (width, height, width, height), strict=True)
    )
    return max(left, 0.0), max(top, 0.0), min(right, 1.0), min(bottom, 1.0)
