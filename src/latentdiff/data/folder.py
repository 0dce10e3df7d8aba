"""Reading a folder of images with captions, classes, objects and label maps, in the format of HF's imagefolder."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

from latentdiff.data.options import KNOWN, DataOptions
from latentdiff.data.records import Column, Records, check_columns
from latentdiff.errors import InputError
from latentdiff.io.stored import IMAGE_SUFFIXES
from latentdiff.registry import nearest
from latentdiff.types import JSON

DATA_SUFFIXES = {*IMAGE_SUFFIXES, ".npy"}


def read_folder(options: DataOptions, output_dir: str | Path | None = None) -> Records:
    """The records of the folder `train_data_dir`, with the label maps of the folder `label_maps` if that is given.

    Args:
        options: The options of the data, which name the folder.
        output_dir: Where a run writes; its images are no data, even if they lie in the folder.

    Raises:
        InputError: If the folder is missing, holds no image, or the metadata is not valid; see `ImageFolder`.
    """
    root = Path(str(options.train_data_dir))
    if not root.is_dir():
        raise InputError(f"{root} is not a folder; give a folder of images")
    described = (root / "metadata.jsonl").exists()
    if not described and (columns := options.columns_given()):
        raise InputError(
            f"{' and '.join(columns)} is given, but {root} has no metadata.jsonl; leave it out, or add one"
        )
    excluded = [Path(folder).resolve() for folder in (options.label_maps, output_dir) if folder is not None]
    records = _read_metadata(root, options, excluded) if described else _read_files(root, excluded)
    if not records.files:
        raise InputError(f"{root} holds no images; known suffixes are {', '.join(sorted(DATA_SUFFIXES))}")
    if options.label_maps is not None:
        records.columns["label_map"] = _maps_of(records, Path(options.label_maps))
    return check_columns(records)


def _images_in(root: Path, excluded: list[Path]) -> Iterator[Path]:
    """The images anywhere in a folder except in the excluded folders."""
    whole = root.resolve()
    inside = [root / folder.relative_to(whole) for folder in excluded if whole in folder.parents]
    for path in root.rglob("*"):
        if path.suffix.lower() in DATA_SUFFIXES and not any(folder in path.parents for folder in inside):
            yield path


def _read_files(root: Path, excluded: list[Path]) -> Records:
    """The records of every image in a folder, with the first sub-folder as its class if all are in sub-folders."""
    paths = sorted(_images_in(root, excluded))
    parts = [path.relative_to(root).parts for path in paths]
    classed = all(len(names) > 1 for names in parts)
    return Records(root, paths, {"label": [first for first, *_ in parts]} if classed else {}, watched=paths)


def _read_metadata(root: Path, options: DataOptions, excluded: list[Path]) -> Records:
    """The records of the images that `metadata.jsonl` names."""
    file_name = options.image_column or "file_name"
    names = {known: options.column(known) or known for known in KNOWN}
    rows = _read_lines(root / "metadata.jsonl", file_name, names)
    columns: dict[str, Column] = {
        known: [row[name] for row in rows] for known, name in names.items() if rows and name in rows[0]
    }
    for name in filter(None, map(options.column, KNOWN)):
        if rows and name not in rows[0]:
            raise InputError(f"{root}/metadata.jsonl has no column {name!r}; {nearest(name, list(rows[0]))}")
    if "label_map" in columns:
        columns["label_map"] = [root / name for name in columns["label_map"]]
    if "text" in columns:
        columns["text"] = [text if isinstance(text, list) else str(text) for text in columns["text"]]
    paths = [root / row[file_name] for row in rows]
    named = {os.path.abspath(path) for path in (*paths, *columns.get("label_map", ()))}
    left_out = sum(os.path.abspath(path) not in named for path in _images_in(root, excluded))
    notes = [f"{root}: {left_out} images are not in metadata.jsonl, left out"] if left_out else []
    return Records(root, paths, columns, rows, notes=notes, watched=paths)


def _read_lines(metadata: Path, file_name: str, names: dict[str, str]) -> list[JSON]:
    """The lines of a `metadata.jsonl`.

    Args:
        metadata: The file.
        file_name: The column of the images' files.
        names: The names of the other columns, by those in `KNOWN`.

    Raises:
        InputError: If a line can't be read, names a file that doesn't exist, or lacks a column that others have.
    """
    rows: list[JSON] = []
    try:
        text = metadata.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{metadata} is not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8") from None
    # str.splitlines would also split captions, at U+2028 for example.
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            files = [row[file_name]]
            if names["label_map"] in row:
                files.append(row[names["label_map"]])
            absent = [file for file in files if not (metadata.parent / file).exists()]
        except (ValueError, KeyError, TypeError) as error:
            reason = f"is not JSON ({error})" if isinstance(error, ValueError) else f"has no path as {file_name!r}"
            raise InputError(f"{metadata} line {number} {reason}; correct the line") from None
        if absent:
            raise InputError(f"{metadata} names {absent[0]}, which does not exist; restore the file or drop the line")
        rows.append(row)
        label = row.get(names["label"], 0)
        first = rows[0].get(names["label"], label)
        if type(label) not in (int, str) or type(label) is not type(first) or (isinstance(label, int) and label < 0):
            raise InputError(
                f"{metadata} line {number}: the label is {label!r}; give a name, or a number from 0, in all lines alike"
            )
    for name in names.values():
        count = sum(name in row for row in rows)
        if 0 < count < len(rows):
            missing = next(row[file_name] for row in rows if name not in row)
            raise InputError(
                f"{metadata}: {name!r} is in {count} of {len(rows)} lines, not in that of {missing}; give it in all "
                "or none"
            )
    return rows


def _maps_of(records: Records, maps: Path) -> list[Path]:
    """The label map of each image: the file in the folder `maps` that has its path, whatever the suffix."""
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
