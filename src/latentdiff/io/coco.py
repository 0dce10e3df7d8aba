"""What COCO's JSON means where annotation tools write it in different ways: ids, crowds, and boxes of polygons."""

from __future__ import annotations

from latentdiff.types import JSON


def id_text(value: object) -> str:
    """An id as a text, alike for 1, 1.0 and "1"."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def is_crowd(annotation: JSON) -> bool:
    """Whether an annotation is of a crowd, which is no object; tools write 0, "0" or false for one that isn't."""
    return str(annotation.get("iscrowd") or 0).lower() not in ("0", "0.0", "false")


def box_in(annotation: JSON) -> list[float] | None:
    """The box (x, y, width, height) in pixels of an object, that of its polygons if it has none; None for an empty one.

    Raises:
        TypeError, ValueError: If it isn't four numbers, or the polygons aren't numbers.
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
    return [x, y, width, height] if width > 0 and height > 0 else None
