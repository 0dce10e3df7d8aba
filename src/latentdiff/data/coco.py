"""Reading COCO's JSON files of instances or captions, as COCO itself and annotation tools write them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from latentdiff.data.records import Size
from latentdiff.data.texts import read_text_file
from latentdiff.errors import InputError
from latentdiff.io.boxes import clip
from latentdiff.io.coco import box_in, category_names, check_in_pixels, id_text, is_crowd
from latentdiff.types import JSON


@dataclass
class Annotations:
    """The content of one file of annotations.

    Attributes:
        column: The name in `KNOWN` of what the file says: "text" or "objects".
        values: The captions or objects of each image, by its name in the file.
        boxes: The format of the boxes, and whether they are in pixels; None if there are no boxes.
        frames: Width and height of each image that the boxes in pixels are of, by its name; those of the file for None.
        left_out: What is left out, and why: the reason to the names of the annotations.
    """

    column: str
    values: dict[str, list[object]]
    boxes: tuple[str, bool] | None = None
    frames: dict[str, Size | None] = field(default_factory=dict)
    left_out: dict[str, list[str]] = field(default_factory=dict)

    def leave_out(self, reason: str, name: str) -> None:
        """Note that an annotation is left out."""
        self.left_out.setdefault(reason, []).append(name)


def read_coco(path: Path) -> Annotations:
    """The annotations of a COCO file, of captions or of instances.

    Numbers and texts as ids are alike, since tools differ. Where an object has a polygon and no box, its box is that of
    the polygon. Crowds are no objects. Annotations without a box, and those of images that the file doesn't list, are
    left out.

    Raises:
        InputError: If an image, a category or an annotation is not valid; the message names it.
        ValueError: If the file is no JSON, or no COCO file.
    """
    content = json.loads(read_text_file(path))
    images, annotations = content["images"], content["annotations"]
    names: dict[str, str] = {}
    found = Annotations("text", {})
    for place, item in enumerate(images):
        name = item.get("file_name")
        if not isinstance(name, str) or not name.strip():
            raise InputError(
                f"annotations {path}: image {item.get('id', place)} has {name!r} as file_name; name its file"
            )
        own = _size(item)
        if name in found.values and found.frames[name] != own:
            raise InputError(f"annotations {path}: {name} is listed twice, in two sizes; leave one out")
        known = names.setdefault(id_text(item["id"]), name)
        if known != name:
            raise InputError(
                f"annotations {path}: {known} and {name} have the id {item['id']!r}, so that it isn't clear which of "
                "them annotations are of; number the images anew"
            )
        found.values[name], found.frames[name] = [], own
    try:
        if any("caption" in item for item in annotations):
            _add_captions(found, names, annotations)
            found.frames = {}
        else:
            found.column, found.boxes = "objects", ("xywh", True)
            _add_objects(found, names, annotations, content.get("categories") or [])
    except InputError as error:
        raise InputError(f"annotations {path}: {error}") from None
    return found


def _add_captions(found: Annotations, names: Mapping[str, str], annotations: Iterable[JSON]) -> None:
    for item in annotations:
        image, caption = names.get(id_text(item.get("image_id"))), item.get("caption")
        if image is None:
            found.leave_out("of images that the file does not list", f"annotation {item.get('id')}")
        elif not isinstance(caption, str):
            raise InputError(f"a caption of {image} is {caption!r}; give a text, or drop it")
        elif caption.strip():
            found.values[image].append(" ".join(caption.split()))


def _add_objects(
    found: Annotations, names: Mapping[str, str], annotations: Iterable[JSON], categories: Iterable[JSON]
) -> None:
    classes, boxes = category_names(categories), list[list[float]]()
    for item in annotations:
        annotation, image = f"annotation {item.get('id')}", names.get(id_text(item.get("image_id")))
        if image is None:
            found.leave_out("of images that the file does not list", annotation)
            continue
        if is_crowd(item):
            continue
        category = item.get("category_id")
        label = classes.get(id_text(category))
        if not isinstance(label, str) or not label.strip():
            raise InputError(
                f"{annotation} of {image} is of the category {category!r}, which has no name; name it in categories"
            )
        box = _box(item, f"{annotation} of {image}")
        size = found.frames[image]
        boxes.append(box or [])
        if box is not None and size is not None:
            box = clip_pixels(box, size)
        if box is None:
            found.leave_out("empty", f"{annotation} of {image}")
        else:
            found.values[image].append({"class": label, "box": box})
    check_in_pixels(boxes)


def _size(item: JSON) -> Size | None:
    """Width and height of an image; None if the file doesn't say them."""
    try:
        width, height = (float(item.get(name) or 0) for name in ("width", "height"))
    except (TypeError, ValueError):
        return None
    return (
        (round(width), round(height)) if math.inf > min(width, height) >= 1 and max(width, height) < math.inf else None
    )


def _box(item: JSON, name: str) -> list[float] | None:
    """The box of an object; None if it is empty, an InputError that has `name` if it is none."""
    try:
        return box_in(item)
    except (TypeError, ValueError):
        raise InputError(f"{name} has the bbox {item.get('bbox')!r}; give four numbers (x, y, width, height)") from None


def clip_pixels(box: Sequence[float], size: Size) -> list[float] | None:
    """The part of a box (x, y, width, height) in pixels that is inside an image of a width and height; None for none.

    The result is rounded to thousandths of a pixel.
    """
    x, y, width, height = box
    part = clip((x, y, x + width, y + height), (0.0, 0.0, *size))
    if part is None:
        return None
    left, top, right, bottom = (value * side for value, side in zip(part, size * 2, strict=True))
    return [round(value, 3) for value in (left, top, right - left, bottom - top)]
