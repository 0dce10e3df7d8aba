"""Annotations that lie beside a folder of images: JSON of COCO, and CSV of Open Images."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from latentdiff.data.options import DataOptions
from latentdiff.data.records import Records, check_known
from latentdiff.errors import InputError
from latentdiff.io.boxes import WHOLE, Corners, clip

OPEN_IMAGES_BOX = ("ImageID", "LabelName", "XMin", "XMax", "YMin", "YMax")


@dataclass
class Found:
    """What one file says: of each image, by its file name or the stem of it."""

    known: str
    values: dict[str, list[Any]]
    boxes: tuple[str, bool] | None = None
    unfit: list[str] = field(default_factory=list)  # boxes that are left out


def annotate(records: Records, options: DataOptions) -> Records:
    """The images that all of the recipe's annotation files know, with what they say.

    Crowds and groups are no objects and left out. Boxes are cut at the edge of their image, and empty ones left out.

    Raises:
        InputError: If a file can't be read, is of no known kind, or speaks of none of the images.
    """
    given = options.annotations or []
    paths = [Path(path) for path in ([given] if isinstance(given, str) else given)]
    names = _read_names([path for path in paths if path.suffix == ".csv"])
    for path in paths:
        found = _read_csv(path, names) if path.suffix == ".csv" else _read_json(path)
        if found is None:  # the names of the classes
            continue
        values = [_lookup(found.values, file, records.root) for file in map(Path, map(str, records.files))]
        places = [place for place, value in enumerate(values) if value is not None]
        if not places:
            raise InputError(f"{path} speaks of none of the {len(values)} images in {records.root}; give their folder")
        if len(places) < len(values):
            records.notes.append(f"{path} does not have {len(values) - len(places)} of {len(values)} images, left out")
        if found.unfit:
            records.notes.append(f"{path}: {len(found.unfit)} boxes are empty, left out; the first is {found.unfit[0]}")
        records = records.chosen(places)
        records.known[found.known] = [values[place] for place in places]
        records.boxes = found.boxes or records.boxes
    return check_known(records)


def _lookup(values: Mapping[str, list[Any]], file: Path, root: Path) -> list[Any] | None:
    keys = (file.relative_to(root).as_posix(), file.name, file.stem)
    return next((values[key] for key in keys if key in values), None)


def _reading(path: Path, read: Callable[[], Any]) -> Any:
    """What `read` gives, or an InputError that names the file."""
    try:
        return read()
    except (OSError, ValueError, KeyError, TypeError, AttributeError, csv.Error) as error:
        said = f"no {error}" if isinstance(error, KeyError) else getattr(error, "strerror", None) or error
        raise InputError(
            f"annotations {path} can't be read ({said}); give a COCO file of instances or captions, or a CSV of boxes "
            "of Open Images"
        ) from None


def _read_json(path: Path) -> Found:
    def read() -> Found:
        content = json.loads(path.read_text(encoding="utf-8"))
        images, annotations = {item["id"]: item for item in content["images"]}, content["annotations"]
        values: dict[str, list[Any]] = {item["file_name"]: [] for item in images.values()}
        if any("caption" in item for item in annotations):
            for item in annotations:
                if item["caption"].strip():
                    values[images[item["image_id"]]["file_name"]].append(" ".join(item["caption"].split()))
            return Found("text", values)
        classes = {item["id"]: item["name"] for item in content["categories"]}
        found = Found("objects", values, ("xywh", True))
        for item in annotations:
            image = images[item["image_id"]]
            if item.get("iscrowd"):
                continue
            x, y, width, height = item["bbox"]
            sides = (image["width"], image["height"])
            box = clip((x, y, x + width, y + height), WHOLE[:2] + sides) if width > 0 and height > 0 else None
            if box is None:
                found.unfit.append(f"annotation {item.get('id')} of {image['file_name']}")
                continue
            left, top, right, bottom = (value * side for value, side in zip(box, sides * 2, strict=True))
            pixels = [round(value, 3) for value in (left, top, right - left, bottom - top)]
            values[image["file_name"]].append({"class": classes[item["category_id"]], "box": pixels})
        return found

    found: Found = _reading(path, read)
    return found


def _rows(path: Path) -> list[list[str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def _read_names(paths: list[Path]) -> dict[str, str]:
    """Labels such as /m/011k07 to names, from the files that are no boxes: two columns, with or without a header."""
    rows = [row for path in paths for row in _reading(path, partial(_rows, path)) if len(row) == 2]
    return {label: name for label, name in rows if label != "LabelName"}


def _read_csv(path: Path, names: Mapping[str, str]) -> Found | None:
    def read() -> Found | None:
        header, *rows = _rows(path)
        if len(header) == 2:
            return None
        columns = [header.index(name) for name in OPEN_IMAGES_BOX]
        group = header.index("IsGroupOf") if "IsGroupOf" in header else None
        found = Found("objects", {}, ("xyxy", False))
        for number, row in enumerate(rows, 2):
            image, label, *sides = (row[column] for column in columns)
            objects = found.values.setdefault(image, [])
            if group is not None and row[group] == "1":
                continue
            left, right, top, bottom = map(float, sides)
            corners: Corners = (left, top, right, bottom)
            box = clip(corners, WHOLE) if left < right and top < bottom else None
            if box is None:
                found.unfit.append(f"line {number}")
            else:
                objects.append({"class": names.get(label, label), "box": list(box)})
        return found

    found: Found | None = _reading(path, read)
    return found
