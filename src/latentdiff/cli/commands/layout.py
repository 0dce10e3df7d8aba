"""`latentdiff layout`: images of objects in boxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from latentdiff.cli.batch.command import Arguments
from latentdiff.cli.batch.files import FileCommand, read_json_file
from latentdiff.cli.batch.make import image_command
from latentdiff.cli.batch.plan import Item, Job
from latentdiff.cli.options import (
    SAMPLING,
    GuidanceOptions,
    Size,
)
from latentdiff.errors import InputError
from latentdiff.io.coco import box_in, category_names, check_in_pixels, id_text, is_crowd
from latentdiff.types import JSON

if TYPE_CHECKING:
    from PIL.Image import Image

    from latentdiff.pipelines.base import DiffusionPipeline

LAYOUT_FORMS = (
    'COCO annotations, or {"objects": [{"class": "dog", "box": [x, y, width, height]}]} in parts of the sides'
)
LEAST_SIDE = 256  # of a picture with boxes, so that their labels can be read


@dataclass(eq=False, kw_only=True)
class Layouts(FileCommand):
    """Make images of objects in boxes.

    A JSON file holds COCO annotations, of which each image is a layout, or
    {"objects": [{"class": "dog", "box": [x, y, width, height]}]} in parts of the sides; with "width" and "height"
    beside the objects, boxes are in pixels.

    Attributes:
        layout: JSON files, or folders of them.
        draw: Show each image again, with its boxes, beside it.
    """

    layout: Annotated[list[str], Parameter(name="PATH")] = field(kw_only=False)
    draw: Annotated[bool, Parameter(show_default=False, group=SAMPLING)] = False
    size: Size = None
    guidance: GuidanceOptions = GuidanceOptions()
    task = "layout-to-image"
    inputs = "layout"
    suffixes = (".json",)

    def items(self) -> Sequence[Item]:
        """An item for each layout: one of a file, or one for each image of COCO annotations."""
        return [layout for item in super().items() for layout in layouts_in(item)]

    def read(self, job: Job) -> Arguments:
        """Objects with boxes relative to the image, as corners."""
        return {"layouts": objects_in(job.item)}

    def fit(self, pipe: DiffusionPipeline, job: Job, inputs: Arguments) -> Arguments:
        """The objects, if the model knows their classes and takes so many."""
        pipe.tokenizer(inputs["layouts"], **self.arguments())
        return inputs

    def arguments(self) -> Arguments:
        """How boxes are given."""
        return {"box_format": "xyxy"}

    def record(self, job: Job) -> dict[str, object]:
        """The file's name, and what it says."""
        assert job.item.path is not None
        draw = {"draw": True} if self.draw else {}
        return {"layout": job.item.path.name, "objects": objects_in(job.item), **draw}

    def finish(self, job: Job, image: Image) -> Image:
        """The image, or it and its boxes."""
        if not self.draw:
            return image
        from latentdiff.viz.boxes import draw_boxes
        from latentdiff.viz.grid import image_grid

        large = image_grid([image], scale=max(1, -(-LEAST_SIDE // min(image.size))))
        return image_grid([large, draw_boxes(large, objects_in(job.item), box_format="xyxy")], columns=2)


layout = image_command(Layouts)


def layouts_in(item: Item) -> list[Item]:
    """The layouts of a file: what `objects_in` takes, or the error of a file that holds none."""
    assert item.path is not None
    try:
        content = read_json_file(item.path, (dict,), LAYOUT_FORMS)
        assert isinstance(content, dict)
        if "annotations" in content:
            return _coco(item, content)
        if not isinstance(content.get("objects"), list):
            raise InputError(f'{item.path} has no list of "objects"; it must hold {LAYOUT_FORMS}')
    except InputError as error:
        return [Item(item.name, error, item.path)]
    return [Item(item.name, content, item.path)]


def _coco(item: Item, content: JSON) -> list[Item]:
    """The layouts of COCO annotations, named after their images.

    Ids are compared as texts, since tools differ, and where an object has a polygon and no box, its box is that of the
    polygon.
    """
    try:
        classes, boxes = category_names(content["categories"]), list[list[float]]()
        layouts: dict[str, JSON] = {}
        names: list[str] = []
        for entry in content["images"]:
            layouts[id_text(entry["id"])] = {"width": entry["width"], "height": entry["height"], "objects": []}
            names.append(PureWindowsPath(str(entry.get("file_name", entry["id"]))).stem)
        for entry in content["annotations"]:
            box = box_in(entry)
            boxes.append(box or [])
            shown = {"class": classes[id_text(entry["category_id"])], "box": box or entry.get("bbox")}
            crowd = {"group": True} if is_crowd(entry) else {}
            layouts[id_text(entry["image_id"])]["objects"].append({**shown, **crowd})
        check_in_pixels(boxes)
    except InputError as error:
        raise InputError(f"{item.path}: {error}") from None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{item.path} is no COCO file ({type(error).__name__} {error}); it must hold {LAYOUT_FORMS}"
        ) from None
    if not layouts or len(layouts) < len(names):
        fault = "two images of one id" if layouts else 'no "images"'
        raise InputError(f"{item.path} has {fault}; it must hold {LAYOUT_FORMS}")
    parent = Path(item.name).parent
    return [
        Item((parent / name).as_posix(), layout, item.path)
        for name, layout in zip(names, layouts.values(), strict=True)
    ]


def objects_in(item: Item) -> list[JSON]:
    """The objects of a layout, their boxes as corners relative to the image.

    Raises:
        InputError: If an object has no box, or it is not valid.
    """
    from latentdiff.io.boxes import parse_box

    layout = item.source
    assert isinstance(layout, Mapping)
    sides = (layout.get("height"), layout.get("width"))
    size = None if sides == (None, None) else sides
    objects = []
    for number, shown in enumerate(layout["objects"]):
        if not isinstance(shown, Mapping) or not {"class", "box"} <= shown.keys():
            raise InputError(f"object {number} is {shown!r}; give {{'class': ..., 'box': ...}}")
        box = parse_box(shown["box"], "xywh", size, name=f"box of object {number}")  # type: ignore[arg-type]
        objects.append({**shown, "box": box})
    return objects
