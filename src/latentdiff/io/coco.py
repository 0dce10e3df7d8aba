"""What COCO's JSON means where annotation tools write it in different ways: ids, crowds, and boxes of polygons."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from latentdiff.errors import InputError
from latentdiff.types import JSON


def id_text(value: object) -> str:
    """An id as a text, alike for 1, 1.0 and "1"."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def category_names(categories: Iterable[JSON]) -> dict[str, object]:
    """The names of categories by their ids as texts.

    Raises:
        InputError: If two names have one id, as where two files were put together.
    """
    names: dict[str, object] = {}
    for item in categories:
        name = item.get("name")
        known = names.setdefault(id_text(item["id"]), name)
        if known != name:
            raise InputError(
                f"the categories {known!r} and {name!r} have the id {item['id']!r}; number the categories anew"
            )
    return names


def check_in_pixels(boxes: Iterable[Sequence[float]]) -> None:
    """InputError if no number in boxes, those of one file, is above 1, so that they seem to be relative."""
    if 0 < max((number for box in boxes for number in box), default=0) <= 1:
        raise InputError(
            "no box reaches beyond 1, so they seem to be relative to their images; COCO's are in pixels, multiply them "
            "by width and height"
        )


def is_crowd(annotation: JSON) -> bool:
    """Whether an annotation is of a crowd, which is no object; tools write 0, "0" or false for one that isn't."""
    return str(annotation.get("iscrowd") or 0).lower() not in ("0", "0.0", "false")


def box_in(annotation: JSON) -> list[float] | None:
    """The box (x, y, width, height) in pixels of an object, that of its polygons if it has none; None for an empty one.

    CVAT writes a box that was turned as it was before, with its turn in degrees: the result is the box around that.

    Raises:
        TypeError, ValueError: If it isn't four finite numbers, or the polygons aren't numbers.
    """
    if box := annotation.get("bbox"):
        x, y, width, height = map(float, box)
    else:
        polygons = annotation.get("segmentation")
        points = [float(value) for polygon in polygons for value in polygon] if isinstance(polygons, list) else []
        if not points:
            return None
        x, y = min(points[::2]), min(points[1::2])
        width, height = max(points[::2]) - x, max(points[1::2]) - y
    if not all(map(math.isfinite, (x, y, width, height))):
        raise ValueError("a number is infinite, or none")
    if width <= 0 or height <= 0:
        return None
    return _around(x, y, width, height, _turn(annotation)) if box else [x, y, width, height]


def _turn(annotation: JSON) -> float:
    """The turn of a box about its centre, in degrees, as CVAT writes it; 0 for none."""
    attributes = annotation.get("attributes")
    return float(attributes.get("rotation") or 0) if isinstance(attributes, dict) else 0.0


def _around(x: float, y: float, width: float, height: float, degrees: float) -> list[float]:
    """The upright box (x, y, width, height) around one that is turned about its centre."""
    if degrees % 180 == 0:
        return [x, y, width, height]
    cosine, sine = abs(math.cos(math.radians(degrees))), abs(math.sin(math.radians(degrees)))
    across, down = width * cosine + height * sine, width * sine + height * cosine
    return [x + (width - across) / 2, y + (height - down) / 2, across, down]
