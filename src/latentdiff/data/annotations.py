"""Reading annotation files beside a folder of images: COCO's JSON and Open Images' CSV."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

from latentdiff.data.options import DataOptions
from latentdiff.data.records import Records, check_columns
from latentdiff.errors import InputError
from latentdiff.io.boxes import WHOLE, Corners, clip

OPEN_IMAGES_BOX = ("ImageID", "LabelName", "XMin", "XMax", "YMin", "YMax")
Parsed = TypeVar("Parsed")


@dataclass
class Annotations:
    """The content of one file of annotations.

    Attributes:
        column: The name in `KNOWN` of what the file says: "text" or "objects".
        values: The captions or objects of each image, by its file name or the stem of that.
        boxes: The format of the boxes, and whether they are in pixels; None if there are no boxes.
        empty: The names of annotations that are left out, since their boxes are empty.
    """

    column: str
    values: dict[str, list[object]]
    boxes: tuple[str, bool] | None = None
    empty: list[str] = field(default_factory=list)


def annotate(records: Records, options: DataOptions) -> Records:
    """Add the content of the recipe's annotation files to records; images that a file doesn't know are left out.

    Crowds and groups are no objects and are left out. Boxes are clipped at the edge of their image, and empty boxes are
    left out.

    Raises:
        InputError: If a file can't be read, is of no known kind, or knows none of the images.
    """
    given = options.annotations or []
    paths = [Path(path) for path in ([given] if isinstance(given, str) else given)]
    names = _read_names([path for path in paths if path.suffix == ".csv"])
    for path in paths:
        found = _read_csv(path, names) if path.suffix == ".csv" else _read_json(path)
        if found is None:  # the file of the classes' names
            continue
        values = [_lookup(found.values, file, records.root) for file in map(Path, map(str, records.files))]
        places = [place for place, value in enumerate(values) if value is not None]
        if not places:
            raise InputError(f"{path} has none of the {len(values)} images in {records.root}; give their folder")
        if len(places) < len(values):
            records.notes.append(f"{path} does not have {len(values) - len(places)} of {len(values)} images, left out")
        if found.empty:
            records.notes.append(f"{path}: {len(found.empty)} boxes are empty, left out; the first is {found.empty[0]}")
        records = records.subset(places)
        records.columns[found.column] = [values[place] for place in places]
        records.boxes = found.boxes or records.boxes
    return check_columns(records)


def _lookup(values: Mapping[str, list[object]], file: Path, root: Path) -> list[object] | None:
    """The annotations of an image, by its path in the folder, its name or the stem of that; None if there are none."""
    keys = (file.relative_to(root).as_posix(), file.name, file.stem)
    return next((values[key] for key in keys if key in values), None)


def _reading(path: Path, read: Callable[[], Parsed]) -> Parsed:
    """The result of `read`; its errors become an InputError that names the file."""
    try:
        return read()
    except (OSError, ValueError, KeyError, TypeError, AttributeError, csv.Error) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else getattr(error, "strerror", None) or error
        raise InputError(
            f"annotations {path} can't be read ({reason}); give a COCO file of instances or captions, or a CSV of "
            "boxes of Open Images"
        ) from None


def _read_json(path: Path) -> Annotations:
    """The annotations of a COCO file, of captions or of instances."""

    def read() -> Annotations:
        content = json.loads(path.read_text(encoding="utf-8"))
        images, annotations = {item["id"]: item for item in content["images"]}, content["annotations"]
        values: dict[str, list[object]] = {item["file_name"]: [] for item in images.values()}
        if any("caption" in item for item in annotations):
            for item in annotations:
                if item["caption"].strip():
                    values[images[item["image_id"]]["file_name"]].append(" ".join(item["caption"].split()))
            return Annotations("text", values)
        classes = {item["id"]: item["name"] for item in content["categories"]}
        found = Annotations("objects", values, ("xywh", True))
        for item in annotations:
            image = images[item["image_id"]]
            if item.get("iscrowd"):
                continue
            x, y, width, height = item["bbox"]
            right, bottom = image["width"], image["height"]
            box = clip((x, y, x + width, y + height), (0.0, 0.0, right, bottom)) if width > 0 and height > 0 else None
            if box is None:
                found.empty.append(f"annotation {item.get('id')} of {image['file_name']}")
                continue
            left, top = box[0] * right, box[1] * bottom
            corners = (left, top, box[2] * right - left, box[3] * bottom - top)
            pixels = [round(value, 3) for value in corners]
            values[image["file_name"]].append({"class": classes[item["category_id"]], "box": pixels})
        return found

    return _reading(path, read)


def _rows(path: Path) -> list[list[str]]:
    """The rows of a CSV file."""
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def _read_names(paths: list[Path]) -> dict[str, str]:
    """The names of labels such as /m/011k07, from the files of two columns, with or without a header."""
    rows = [row for path in paths for row in _reading(path, partial(_rows, path)) if len(row) == 2]
    return {label: name for label, name in rows if label != "LabelName"}


def _read_csv(path: Path, names: Mapping[str, str]) -> Annotations | None:
    """The annotations of Open Images' CSV of boxes; None for the CSV of the classes' names."""

    def read() -> Annotations | None:
        header, *rows = _rows(path)
        if len(header) == 2:
            return None
        columns = [header.index(name) for name in OPEN_IMAGES_BOX]
        group = header.index("IsGroupOf") if "IsGroupOf" in header else None
        found = Annotations("objects", {}, ("xyxy", False))
        for number, row in enumerate(rows, 2):
            image, label, *sides = (row[column] for column in columns)
            objects = found.values.setdefault(image, [])
            if group is not None and row[group] == "1":
                continue
            left, right, top, bottom = map(float, sides)
            corners: Corners = (left, top, right, bottom)
            box = clip(corners, WHOLE) if left < right and top < bottom else None
            if box is None:
                found.empty.append(f"line {number}")
            else:
                objects.append({"class": names.get(label, label), "box": list(box)})
        return found

    return _reading(path, read)
