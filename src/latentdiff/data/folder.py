"""A folder of images, with captions, classes, objects and label maps as Hugging Face's imagefolder has them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from latentdiff.data.images import Images
from latentdiff.data.options import KNOWN, DataOptions
from latentdiff.data.records import Records, check_known
from latentdiff.errors import InputError
from latentdiff.io.images import IMAGE_SUFFIXES
from latentdiff.registry import nearest

SUFFIXES = IMAGE_SUFFIXES | {".npy"}


class ImageFolder(Images):
    """The images of a folder.

    Args:
        root: Folder. `metadata.jsonl` in it names the images (`file_name`), and what is known of them: captions
            (`text`), classes (`label`, all names or all numbers from 0), objects (`objects`, a list of
            `{"class": ..., "box": ...}`) and label maps (`label_map`, a file). Without it every image in the folder
            counts, and where all of them lie in sub-folders, those are the classes.
        resolution: Side of the tensors in pixels.

    Raises:
        InputError: If the folder is missing, holds no image, or the metadata names a missing file or has a column that
            isn't filled in every line.
    """

    def __init__(self, root: str | Path, resolution: int) -> None:
        super().__init__(read_folder(DataOptions(train_data_dir=str(root), resolution=resolution)), resolution)


def read_folder(options: DataOptions, output_dir: str | Path | None = None) -> Records:
    """The records of the folder that `train_data_dir` names, its label maps with them if they lie in another.

    Args:
        options: Name the folder.
        output_dir: Where a run writes, whose images are no data should they lie in the folder.

    Raises:
        InputError: See `ImageFolder`.
    """
    root = Path(str(options.train_data_dir))
    if not root.is_dir():
        raise InputError(f"{root} is not a folder; give a folder of images")
    maps = None if options.label_maps is None else Path(options.label_maps)
    described = (root / "metadata.jsonl").exists()
    if not described and (columns := options.columns_given()):
        raise InputError(
            f"{' and '.join(columns)} is given, but {root} has no metadata.jsonl; leave it out, or add one"
        )
    others = [Path(folder).resolve() for folder in (options.label_maps, output_dir) if folder is not None]
    records = _read_metadata(root, options, others) if described else _read_files(root, others)
    if not records.files:
        raise InputError(f"{root} holds no images; known suffixes are {', '.join(sorted(SUFFIXES))}")
    if maps is not None:
        records.known["label_map"] = _maps_of(records, maps)
    return check_known(records)


def _images_in(root: Path, others: list[Path]) -> Iterator[Path]:
    """The images anywhere in a folder, but for other folders in it."""
    whole = root.resolve()
    inside = [root / other.relative_to(whole) for other in others if whole in other.parents]
    for path in root.rglob("*"):
        if path.suffix.lower() in SUFFIXES and not any(other in path.parents for other in inside):
            yield path


def _read_files(root: Path, others: list[Path]) -> Records:
    """Every image in the folder but those in `others`, with the first sub-folder as its class."""
    paths = sorted(_images_in(root, others))
    parts = [path.relative_to(root).parts for path in paths]
    classed = all(len(names) > 1 for names in parts)
    return Records(root, paths, {"label": [first for first, *_ in parts]} if classed else {}, parts=paths)


def _read_metadata(root: Path, options: DataOptions, others: list[Path]) -> Records:
    """The images that `metadata.jsonl` names."""
    file_name = options.image_column or "file_name"
    columns = {known: options.column(known) or known for known in KNOWN}
    rows = _read_lines(root / "metadata.jsonl", file_name, columns)
    known: dict[str, list[Any]] = {
        name: [row[column] for row in rows] for name, column in columns.items() if rows and column in rows[0]
    }
    for name in filter(None, map(options.column, KNOWN)):
        if rows and name not in rows[0]:
            raise InputError(f"{root}/metadata.jsonl has no column {name!r}; {nearest(name, list(rows[0]))}")
    if "label_map" in known:
        known["label_map"] = [root / name for name in known["label_map"]]
    if "text" in known:
        known["text"] = [text if isinstance(text, list) else str(text) for text in known["text"]]
    paths = [root / row[file_name] for row in rows]
    named = {os.path.abspath(path) for path in (*paths, *known.get("label_map", ()))}
    left_out = sum(os.path.abspath(path) not in named for path in _images_in(root, others))
    notes = [f"{root}: {left_out} images are not in metadata.jsonl, left out"] if left_out else []
    return Records(root, paths, known, rows, notes=notes, parts=paths)


def _read_lines(metadata: Path, file_name: str, columns: dict[str, str]) -> list[dict[str, Any]]:
    """The lines, all of which have the same columns."""
    rows: list[dict[str, Any]] = []
    map_column = columns["label_map"]
    try:
        text = metadata.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{metadata} is not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8") from None
    for number, line in enumerate(text.split("\n"), 1):  # str.splitlines cuts within captions, at U+2028 for one
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            files = [row[name] for name in (file_name, map_column) if name == file_name or name in row]
            absent = [file for file in files if not (metadata.parent / file).exists()]
        except (ValueError, KeyError, TypeError) as error:
            reason = f"is no JSON ({error})" if isinstance(error, ValueError) else f"has no path as {file_name!r}"
            raise InputError(f"{metadata} line {number} {reason}; mend the line") from None
        if absent:
            raise InputError(f"{metadata} names {absent[0]}, which does not exist; restore the file or drop the line")
        rows.append(row)
        label, first = row.get(columns["label"], 0), rows[0].get(columns["label"], row.get(columns["label"], 0))
        if type(label) not in (int, str) or type(label) is not type(first) or (isinstance(label, int) and label < 0):
            raise InputError(
                f"{metadata} line {number}: the label is {label!r}; give a name, or a number from 0, in all lines alike"
            )
    for column in columns.values():
        count = sum(column in row for row in rows)
        if 0 < count < len(rows):
            first = next(row[file_name] for row in rows if column not in row)
            raise InputError(
                f"{metadata}: {column!r} is in {count} of {len(rows)} lines, not in that of {first}; give it in all "
                "or none"
            )
    return rows


def _maps_of(records: Records, maps: Path) -> list[Path]:
    """For each image the file of the same path, its suffix aside, in the folder of label maps."""
    if not maps.is_dir():
        raise InputError(f"label_maps is {maps}, which is not a folder; give a folder of label maps")
    by_stem = {path.relative_to(maps).with_suffix(""): path for path in sorted(maps.rglob("*")) if path.is_file()}
    stems = [Path(str(file)).relative_to(records.root).with_suffix("") for file in records.files]
    absent = [stem for stem in stems if stem not in by_stem]
    if absent:
        raise InputError(
            f"{len(absent)} of {len(stems)} images have no label map in {maps}, the first is {absent[0]}; "
            "maps have the names of the images, with any suffix"
        )
    return [by_stem[stem] for stem in stems]
