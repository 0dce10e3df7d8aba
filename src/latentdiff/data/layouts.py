"""The objects in a data set's images as layouts, relative to the part of the image that training sees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from latentdiff.config import check
from latentdiff.data.frames import Frame, frame_of
from latentdiff.data.images import Images
from latentdiff.data.views import View, Views
from latentdiff.errors import BadFileError, InputError
from latentdiff.io.boxes import Corners, parse_box
from latentdiff.labels import sorted_names
from latentdiff.types import JSON

MIN_AREA = 1e-4  # share of the part below which the rest of a clipped box is too small to be seen


def resolve_box_format(images: Images, box_format: str | None, box_units: str | None) -> tuple[str, bool]:
    """The format of the boxes, and whether they are in pixels.

    Args:
        images: The images, whose source may say it.
        box_format: The user's option, "xywh" or "xyxy"; None if it isn't given.
        box_units: The user's option, "pixels" or "relative"; None if it isn't given.

    Raises:
        ConfigError: If both the source and the user say it.
        InputError: If neither says the units, and the boxes look relative.
    """
    if images.boxes is not None:
        given = [name for name, value in (("box_format", box_format), ("box_units", box_units)) if value is not None]
        check(not given, f"{' and '.join(given)} is given, but annotations say how their boxes are meant; leave it out")
        return images.boxes
    boxes = [item.get("box") for objects in images.objects or [] for item in objects if isinstance(item, Mapping)]
    numbers = [number for box in boxes if isinstance(box, (list, tuple)) for number in box]
    small = all(isinstance(number, (int, float)) and number <= 1 for number in numbers)
    if box_units is None and numbers and small:
        raise InputError(
            f"{images.root}: no box reaches beyond 1, so they seem to be relative; give box_units relative, "
            "or pixels if that is what they are"
        )
    return box_format or "xywh", box_units != "relative"


@dataclass(frozen=True)
class WholeLayout:
    """The objects of an image.

    Attributes:
        objects: The objects, with boxes as "xyxy" relative to the whole image.
        size: Height and width of the image in pixels.
    """

    objects: list[JSON]
    size: tuple[int, int]

    def seen(self, view: View) -> list[JSON]:
        """The objects that a view shows, with boxes clipped to it and relative to it."""
        boxes = [view.corners(item["box"], *self.size) for item in self.objects]
        return [
            {**item, "box": box}
            for item, box in zip(self.objects, boxes, strict=True)
            if box is not None and (box[2] - box[0]) * (box[3] - box[1]) >= MIN_AREA
        ]


def read_layouts(images: Images, box_format: str, pixels: bool) -> list[WholeLayout]:
    """The objects of each image.

    Args:
        images: The images.
        box_format: The format of the boxes in the data, "xywh" or "xyxy".
        pixels: Whether these boxes are in pixels of the image, as in COCO, or relative to it.

    Raises:
        InputError: If the images have no objects, or one isn't valid.
    """
    layouts: list[WholeLayout] = []
    for number, objects in enumerate(objects_of(images)):
        try:
            boxes, size = boxes_of(images, number, box_format, pixels)
        except BadFileError:  # in training, another sample takes its place
            layouts.append(WholeLayout([], (1, 1)))
            continue
        found = [{**item, "box": box} for item, box in zip(objects, boxes, strict=True)]
        layouts.append(WholeLayout(found, size))
    return layouts


def most_seen(layouts: Sequence[WholeLayout], views: Views) -> list[list[JSON]]:
    """The objects of each image that training may show at once: all of them where parts are drawn."""
    if views.drawn:
        return [layout.objects for layout in layouts]
    return [layout.seen(views.copy(number, 0)) for number, layout in enumerate(layouts)]


def objects_of(images: Images) -> list[list[JSON]]:
    """The objects of each image as the data has them; InputError if it has none."""
    if images.objects is None:
        raise InputError(
            f"{images.root} has no objects; give each image a list of {{'class': ..., 'box': ...}} as 'objects' in "
            f"metadata.jsonl, or a file of annotations{images.hint('objects_column')}"
        )
    return images.objects


def boxes_of(images: Images, number: int, box_format: str, pixels: bool) -> tuple[list[Corners], tuple[int, int]]:
    """The boxes of an image's objects, relative to the whole upright image, and its height and width.

    Args:
        images: The images.
        number: The number of the image.
        box_format: The format of the boxes in the data, "xywh" or "xyxy".
        pixels: Whether these boxes are in pixels, or relative.

    Raises:
        BadFileError: If the image can't be decoded.
        InputError: If an object is not valid, or the boxes are of another image than the file's.
    """
    assert images.objects is not None
    frame, file = image_frame(images, number), images.records.name_of(number)
    boxes = [
        upright_box(item, frame, box_format, pixels, f"box of object {place} of {file}")
        for place, item in enumerate(images.objects[number])
    ]
    return boxes, frame.file_size


def image_frame(images: Images, number: int) -> Frame:
    """The image that the boxes of an image's objects are of; raises as `boxes_of`."""
    assert images.objects is not None
    objects, file = images.objects[number], images.records.name_of(number)
    if not isinstance(objects, list) or not all(isinstance(item, Mapping) and "box" in item for item in objects):
        raise InputError(f"{file}: objects are {objects!r}; give a list of {{'class': ..., 'box': ...}}")
    for place, item in enumerate(objects):
        label = item.get("class")
        if not (type(label) is int and label >= 0) and not (isinstance(label, str) and label.strip()):
            raise InputError(f"{file}: object {place} is of the class {label!r}; give a name, or a number from 0")
    return frame_of(images.files[number], file, images.records.frame(number), bool(objects))


def upright_box(item: JSON, frame: Frame, box_format: str, pixels: bool, name: str) -> Corners:
    """The box of an object, relative to the upright image; `name` is what errors call it."""
    return frame.upright(parse_box(item["box"], box_format, frame.size if pixels else None, name=name))


def classes_of(layouts: list[list[JSON]]) -> JSON:
    """The options of a layout tokenizer for these objects: `class_names`, sorted, or `num_classes` for numbers.

    Raises:
        InputError: If there is no object, or names and numbers are mixed.
    """
    classes = {item.get("class") for layout in layouts for item in layout}
    if not classes:
        raise InputError("no image has objects; give some, or train without layouts")
    if all(isinstance(name, str) for name in classes):
        return {"class_names": sorted_names(str(name) for name in classes)}
    numbers = [number for number in classes if isinstance(number, int) and not isinstance(number, bool) and number >= 0]
    if len(numbers) < len(classes):
        raise InputError("objects: classes must all be names, or all numbers from 0; give each object its 'class'")
    return {"num_classes": max(numbers) + 1}
