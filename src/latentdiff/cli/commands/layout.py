"""`latentdiff layout`: images of objects in boxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from latentdiff.cli.batch.files import FileCommand, read_json
from latentdiff.cli.batch.plan import Item, Job
from latentdiff.cli.options import add_guidance_options
from latentdiff.cli.parser import Parser
from latentdiff.errors import InputError

KINDS = 'COCO annotations, or {"objects": [{"class": "dog", "box": [x, y, width, height]}]} in parts of the sides'
LEAST_SIDE = 256  # of a picture with boxes, so that their labels can be read


class Layout(FileCommand):
    """Layouts, with a model of layouts."""

    name = "layout"
    help = "make images of objects in boxes"
    description = f'Make images of objects where their boxes are. A JSON file holds {KINDS}; with "width" and "height"'
    description += " beside the objects, boxes are in pixels. Of COCO annotations, each image is a layout."
    tasks = ("layout-to-image",)
    sized = True
    argument = "layout"
    what = "JSON files, or folders of them"
    suffixes = (".json",)

    @classmethod
    def add_own_options(cls, parser: Parser, sampling: Any) -> None:
        """Drawing and guidance."""
        sampling.add_argument("--draw", action="store_true", help="show each image again, with its boxes, beside it")
        add_guidance_options(parser, "1")

    def items(self) -> Sequence[Item]:
        """An item for each layout: one of a file, or one for each image of COCO annotations."""
        return [layout for item in super().items() for layout in read_layouts(item)]

    def read(self, job: Job) -> dict[str, Any]:
        """Objects with boxes relative to the image, as corners."""
        return {"layouts": read_objects(job.item.source)}

    def fit(self, pipe: Any, job: Job, inputs: dict[str, Any]) -> dict[str, Any]:
        """The objects, if the model knows their classes and takes so many."""
        pipe.tokenizer(inputs["layouts"], **self.options())
        return inputs

    def options(self) -> dict[str, Any]:
        """How boxes are given."""
        return {"box_format": "xyxy"}

    def record(self, job: Job) -> dict[str, Any]:
        """The file's name, and what it says."""
        assert job.item.path is not None
        draw = {"draw": True} if self.args.draw else {}
        return {"layout": job.item.path.name, "objects": read_objects(job.item.source), **draw}

    def finish(self, job: Job, image: Any) -> Any:
        """The image, or it and its boxes."""
        if not self.args.draw:
            return image
        from latentdiff.viz.boxes import draw_boxes
        from latentdiff.viz.grid import image_grid

        large = image_grid([image], scale=max(1, -(-LEAST_SIDE // min(image.size))))
        objects = read_objects(job.item.source)
        return image_grid([large, draw_boxes(large, objects, **self.options())], columns=2)


def read_layouts(item: Item) -> list[Item]:
    """The layouts of a file: what `read_objects` takes, or the error of a file that holds none."""
    assert item.path is not None
    try:
        content = read_json(item.path, lambda value: isinstance(value, Mapping), KINDS)
        if "annotations" in content:
            return _coco(item, content)
        if not isinstance(content.get("objects"), list):
            raise InputError(f'{item.path} has no list of "objects"; it must hold {KINDS}')
    except InputError as error:
        return [Item(item.name, error, item.path)]
    return [Item(item.name, content, item.path)]


def _coco(item: Item, content: Mapping[str, Any]) -> list[Item]:
    """The layouts of COCO annotations, named after their images."""
    try:
        classes = {entry["id"]: entry["name"] for entry in content["categories"]}
        layouts: dict[Any, dict[str, Any]] = {}
        for entry in content["images"]:
            layouts[entry["id"]] = {"width": entry["width"], "height": entry["height"], "objects": []}
        for entry in content["annotations"]:
            shown = {"class": classes[entry["category_id"]], "box": entry["bbox"]}
            crowd = {"group": True} if entry.get("iscrowd") else {}
            layouts[entry["image_id"]]["objects"].append({**shown, **crowd})
        names = [Path(str(entry.get("file_name", entry["id"]))).stem for entry in content["images"]]
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{item.path} is no COCO file ({type(error).__name__} {error}); it must hold {KINDS}"
        ) from None
    if not layouts or len(layouts) < len(names):
        fault = "two images of one id" if layouts else 'no "images"'
        raise InputError(f"{item.path} has {fault}; it must hold {KINDS}")
    parent = Path(item.name).parent
    return [
        Item((parent / name).as_posix(), layout, item.path)
        for name, layout in zip(names, layouts.values(), strict=True)
    ]


def read_objects(layout: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The objects of a layout, their boxes as corners relative to the image.

    Raises:
        InputError: If an object has no box, or it is not valid.
    """
    from latentdiff.io.boxes import parse_box

    sides = (layout.get("height"), layout.get("width"))
    size = None if sides == (None, None) else sides
    objects = []
    for number, item in enumerate(layout["objects"]):
        if not isinstance(item, Mapping) or not {"class", "box"} <= item.keys():
            raise InputError(f"object {number} is {item!r}; give {{'class': ..., 'box': ...}}")
        box = parse_box(item["box"], "xywh", size, name=f"box of object {number}")  # type: ignore[arg-type]
        objects.append({**item, "box": box})
    return objects
