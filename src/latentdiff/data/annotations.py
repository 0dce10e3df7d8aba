"""Reading annotation files beside a folder of images: COCO's JSON and Open Images' CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TypeVar

from latentdiff.data.coco import Annotations, clip_pixels, read_coco
from latentdiff.data.names import match_names
from latentdiff.data.options import DataOptions
from latentdiff.data.records import Records, check_columns
from latentdiff.data.texts import read_text_file
from latentdiff.errors import BadFileError, InputError
from latentdiff.io.arrays import size_of
from latentdiff.io.boxes import WHOLE, Corners, clip

OPEN_IMAGES_BOX = ("ImageID", "LabelName", "XMin", "XMax", "YMin", "YMax")
MOST_RELATIVE = 1.5  # some reach out of the image a little; what is larger is in pixels
WHAT = {"text": "captions", "objects": "objects"}
Parsed = TypeVar("Parsed")


def annotate(records: Records, options: DataOptions) -> Records:
    """Add the content of the recipe's annotation files to records; images that a file doesn't know are left out.

    Crowds and groups are no objects and are left out. Boxes are clipped at the edge of their image, and empty boxes are
    left out.

    Raises:
        InputError: If a file can't be read, is of no known kind, knows none of the images, or has a name that may be
            several of them; or if two files have the same kind of annotations.
    """
    given = options.annotations or []
    paths = [Path(path) for path in ([given] if isinstance(given, str) else given)]
    names = _read_names([path for path in paths if path.suffix.lower() == ".csv"])
    own, sources = set(records.columns), dict[str, Path]()
    for path in paths:
        found = _read_csv(path, names) if path.suffix.lower() == ".csv" else _reading(path, partial(read_coco, path))
        if found is None:  # the file of the classes' names
            continue
        if found.column in sources:
            raise InputError(
                f"annotations {sources[found.column]} and {path} both have {WHAT[found.column]}; make them one file"
            )
        sources[found.column] = path
        records = _add(records, found, path)
        if found.column in own:
            records.notes.append(f"{records.root} has {WHAT[found.column]} of its own, left out for those of {path}")
    return check_columns(records)


def _add(records: Records, found: Annotations, path: Path) -> Records:
    """Records of the images that annotations are of, with these as a column."""
    files = [str(file) for file in records.files]
    names = match_names(list(found.values), files, records.root, f"annotations {path}")
    places = [place for place, name in enumerate(names) if name is not None]
    if not places:
        raise InputError(f"{path} has none of the {len(files)} images in {records.root}; give their folder")
    if len(places) < len(files):
        records.notes.append(f"{path} does not have {len(files) - len(places)} of {len(files)} images, left out")
    for reason, left_out in found.left_out.items():
        what = "boxes" if reason == "empty" else "annotations"
        records.notes.append(f"{path}: {len(left_out)} {what} are {reason}, left out; the first is {left_out[0]}")
    unknown = len(found.values) - len(places)
    if unknown:
        records.ignored.append(f"{path} has {unknown} images that are not in {records.root}")
    records = records.subset(places)
    matched = [name for name in names if name is not None]
    records.columns[found.column] = [found.values[name] for name in matched]
    if found.boxes is not None:
        records.boxes, records.frames = found.boxes, [found.frames.get(name) for name in matched]
        for place, frame in enumerate(records.frames):
            if frame is None and found.boxes == ("xywh", True):
                _clip_at_edge(records, place)
    return records


def _clip_at_edge(records: Records, place: int) -> None:
    """Clip the boxes of an image at its edge, where the annotations don't say its size."""
    try:
        height, width = size_of(records.files[place])
    except BadFileError:  # in training, another sample takes its place
        return
    objects = records.columns["objects"][place]
    clipped = [(item, clip_pixels(item["box"], (width, height))) for item in objects]
    records.columns["objects"][place] = [{**item, "box": box} for item, box in clipped if box is not None]
    if missing := sum(box is None for _, box in clipped):
        records.notes.append(f"{missing} boxes of {records.name_of(place)} are outside of it, left out")


def _reading(path: Path, read: Callable[[], Parsed]) -> Parsed:
    """The result of `read`; its errors become an InputError that names the file."""
    try:
        return read()
    except InputError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError, csv.Error) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else getattr(error, "strerror", None) or error
        raise InputError(
            f"annotations {path} can't be read ({reason}); give a COCO file of instances or captions, or a CSV of "
            "boxes of Open Images"
        ) from None


def _rows(path: Path) -> list[list[str]]:
    """The rows of a CSV file."""
    return list(csv.reader(io.StringIO(read_text_file(path), newline="")))


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
            if not row:
                continue
            image, label, *sides = (row[column] for column in columns)
            objects = found.values.setdefault(image, [])
            if group is not None and row[group] == "1":
                continue
            left, right, top, bottom = map(float, sides)
            if max(right, bottom) > MOST_RELATIVE:
                raise InputError(
                    f"annotations {path} line {number} has a box that reaches to {max(right, bottom):g}; those of Open "
                    "Images are relative, from 0 to 1, divide them by width and height"
                )
            corners: Corners = (left, top, right, bottom)
            box = clip(corners, WHOLE) if left < right and top < bottom else None
            if box is None:
                found.leave_out("empty", f"line {number}")
            else:
                objects.append({"class": names.get(label, label), "box": list(box)})
        return found

    return _reading(path, read)
