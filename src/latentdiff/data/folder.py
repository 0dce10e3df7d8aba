"""Reading a folder of images with captions, classes, objects and label maps, in the format of HF's imagefolder."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from latentdiff.data.metadata import METADATA, Row, check_rows, read_rows, size_in
from latentdiff.data.names import match_names, relative_name
from latentdiff.data.options import KNOWN, DataOptions
from latentdiff.data.records import Column, Records, check_columns
from latentdiff.data.splits import chosen_split, find_splits
from latentdiff.data.texts import read_text_file
from latentdiff.data.walk import DATA_SUFFIXES, Walked, identity, walk
from latentdiff.errors import InputError
from latentdiff.io.stored import IMAGE_SUFFIXES

# A line of YOLO's annotations: a class and the numbers of a box or polygon.
YOLO_LINE = re.compile(r"\s*\d+(\s+[-+.\deE]+){4,}\s*")
# What the names of label maps and masks end in that lie beside their images, such as ADE20K's `_seg`.
MAP_WORDS = frozenset(
    ["annotation", "gt", "label", "labelids", "labelmap", "labels", "mask", "masks", "seg", "segmentation", "semantic"]
)


def read_folder(
    options: DataOptions, output_dir: str | Path | None = None, held_out: str | Path | None = None
) -> Records:
    """The records of the folder `train_data_dir`, with the label maps of the folder `label_maps` if that is given.

    Args:
        options: The options of the data, which name the folder.
        output_dir: Where a run writes; its images are no data, even if they lie in the folder.
        held_out: A folder whose images are validated on, and left out here.

    Raises:
        InputError: If the folder is missing, holds no image, or the metadata is not valid; see `ImageFolder`.
        ConfigError: If a split or column is asked for, and the folder has none.
    """
    root = Path(str(options.train_data_dir))
    if not root.is_dir():
        raise InputError(f"{root} is not a folder; give a folder of images")
    found = walk(root, [folder for folder in (options.label_maps, output_dir, held_out) if folder is not None])
    described = [path for path in found.others if path.name in METADATA]
    if not described and (columns := [name for name in options.columns_given() if name != "caption_column"]):
        raise InputError(
            f"{' and '.join(columns)} is given, but {root} has no metadata.jsonl; leave it out, or add one"
        )
    above = [path for path in described if path.parent == root]  # of all images, and not of one split
    rows = _rows_of(above, options)
    split = _split_of(root, [path for _, path in rows] if above else found.images, options)
    described = [path for path in described if path in above or path in split]
    rows += _rows_of([path for path in described if path not in above], options)
    rows = [(row, path) for row, path in rows if path in split]
    images = [path for path in found.images if path in split]
    if described:
        records = _of_rows(root, rows, options)
        _note_others(records, images, described)
    else:
        records = _of_files(root, images, split.folders[0].count("/") + 1 if split.folders else 0)
    if described and not records.files:
        raise InputError(f"{described[0]} names no image; add lines, or take it away to read all images in {root}")
    if not records.files:
        raise InputError(_nothing(root, found))
    used = [*described]
    if "text" not in records.columns:
        used += _add_captions(records, found, options, bool(described))
    records.notes += [*split.notes, *found.notes, *found.pictures_left_out()]
    records.ignored += found.ignored(used)
    if options.label_maps is not None:
        records.columns["label_map"] = _maps_of(records, Path(options.label_maps))
    return check_columns(records)


def _rows_of(described: list[Path], options: DataOptions) -> list[tuple[Row, Path]]:
    """The rows of files of metadata, each with the image that it is of."""
    return [(row, row.path(options.image_column or "file_name")) for row in read_rows(described, options)]


class _Split:
    """The files of a folder that are in one split, which is all of them if there are no splits.

    Attributes:
        folders: The sub-folders of the split; none if there are no splits.
        notes: A line that says which splits are left out.
    """

    def __init__(self, root: Path, folders: Sequence[str], left_out: Sequence[str]) -> None:
        self.root, self.folders = root, folders
        names = " and ".join(left_out)
        self.notes = (
            [f"{root} has other splits, which are left out: {names}; dataset_split chooses one"] if left_out else []
        )

    def __contains__(self, path: Path) -> bool:
        return not self.folders or _inside(path, self.root).startswith(tuple(f"{name}/" for name in self.folders))


def _split_of(root: Path, images: Sequence[Path], options: DataOptions) -> _Split:
    """The split of a folder that the recipe asks for."""
    splits = find_splits(root, [relative_name(path, root) or path.name for path in images])
    chosen = chosen_split(root, splits, options)
    return _Split(root, chosen, [name for names in splits.values() if names != chosen for name in names])


def _inside(path: Path, root: Path) -> str:
    """The path of a file in a folder, with slashes, or its whole path if it is outside."""
    return relative_name(path, root) or path.as_posix()


def _nothing(root: Path, found: Walked) -> str:
    """The message of a folder without images."""
    why = "; ".join([*found.pictures_left_out(), *found.ignored()])
    known = f"known suffixes are {', '.join(sorted(DATA_SUFFIXES))}"
    return f"{root} holds no images; {known}" + (f"; of what it holds, {why}" if why else "")


def _of_files(root: Path, paths: list[Path], base: int) -> Records:
    """The records of images in a folder, with the first sub-folder as the class if all are in sub-folders."""
    parts = [_inside(path, root).split("/")[base:] for path in paths]
    classed = all(len(names) > 1 for names in parts)
    records = Records(root, paths, {"label": [first for first, *_ in parts]} if classed else {}, watched=paths)
    known: dict[str, Path] = {}
    twice = [(p, first) for p in paths if (first := known.setdefault(os.path.splitext(str(p))[0], p)) is not p]
    if twice:
        records.notes.append(
            f"{len(twice)} images differ from others by their suffix alone, the first are {twice[0][1]} and "
            f"{twice[0][0]}; if one of them is a label map or a mask, move it elsewhere"
        )
    records.notes += _named_like_maps(known)
    return records


def _named_like_maps(images: Mapping[str, Path]) -> list[str]:
    """A line if images, given by their names without suffix, are named like label maps of others: `X_seg` of `X`."""
    found = [
        (path, images[image])
        for stem, path in images.items()
        for image, _, word in (stem.rpartition("_"), stem.rpartition("-"))
        if word.lower() in MAP_WORDS and image in images
    ]
    if not found:
        return []
    first, image = found[0]
    return [
        f"{len(found)} images are named like label maps or masks of others, the first is {first} beside {image}; they "
        "are read as images: move maps to a folder of their own, by the images' names, and give it as label_maps"
    ]


def _of_rows(root: Path, rows: Sequence[tuple[Row, Path]], options: DataOptions) -> Records:
    """The records of the images that metadata names."""
    check_rows([row for row, _ in rows], options)
    metadata, paths = [row.values for row, _ in rows], [path for _, path in rows]
    names = {known: options.column(known) or known for known in KNOWN}
    columns: dict[str, Column] = {
        known: [values[name] for values in metadata] for known, name in names.items() if rows and name in metadata[0]
    }
    if "label_map" in columns:
        columns["label_map"] = [row.path(names["label_map"]) for row, _ in rows]
    frames = [size_in(values) for values in metadata] if "objects" in columns else []
    return Records(root, paths, columns, metadata, frames=frames, watched=paths)


def _note_others(records: Records, images: Sequence[Path], described: Sequence[Path]) -> None:
    """Say how many images of a folder are in no file of metadata."""
    named = [*map(str, records.files), *map(str, records.columns.get("label_map", ()))]
    paths = set(map(os.path.abspath, named))
    others = [path for path in images if os.path.abspath(path) not in paths]
    if others:  # perhaps under another name
        known = set(map(identity, named))
        others = [path for path in others if identity(path) not in known]
    if others:
        source = described[0].name if len(described) == 1 else "any of its metadata"
        records.notes.append(f"{records.root}: {len(others)} images are not in {source}, left out")


def _add_captions(records: Records, found: Walked, options: DataOptions, described: bool) -> list[Path]:
    """Read the captions that lie beside the images, such as `0.txt` of `0.png`, and return their files.

    Raises:
        InputError: If one is no text, or the recipe names a suffix that no file has.
    """
    suffix = f".{(options.column('text') or 'txt').lstrip('.')}"
    there = {
        str(path.with_suffix("")): path
        for path in sorted(found.others)
        if path.suffix.lower() == suffix.lower() and path.name not in METADATA
    }
    beside = [there.get(os.path.splitext(str(file))[0]) for file in records.files]
    texts = {path: read_text_file(path).strip() for path in dict.fromkeys(filter(None, beside))}
    boxes = [path for path, text in texts.items() if text and all(map(YOLO_LINE.fullmatch, text.splitlines()))]
    if boxes:
        records.notes.append(f"{boxes[0]} and {len(boxes) - 1} more hold boxes as YOLO writes them, no captions")
        return []
    if texts:
        records.columns["text"] = [None if path is None else texts[path] for path in beside]
    elif options.caption_column is not None and not described:
        raise InputError(
            f"caption_column is given, but {records.root} has no metadata.jsonl and no file {suffix} beside an image; "
            "leave it out, or add one"
        )
    return list(texts)


def _maps_of(records: Records, maps: Path) -> list[Path]:
    """The label map of each image: the file in the folder `maps` that has its path, whatever the suffix."""
    if not maps.is_dir():
        raise InputError(f"label_maps is {maps}, which is not a folder; give a folder of label maps")
    by_stem: dict[str, Path] = {}
    for path in walk(maps).images:
        if path.suffix.lower() not in IMAGE_SUFFIXES:
            continue
        stem = path.relative_to(maps).with_suffix("").as_posix()
        if stem in by_stem:
            raise InputError(f"label_maps has {by_stem[stem]} and {path} for one image; keep one of them")
        by_stem[stem] = path
    files = [str(file) for file in records.files]
    stems = match_names(list(by_stem), files, records.root, f"label_maps {maps}")
    absent = [records.name_of(place) for place, stem in enumerate(stems) if stem is None]
    if absent:
        raise InputError(
            f"{len(absent)} of {len(stems)} images have no label map in {maps}, the first is "
            f"{os.path.splitext(absent[0])[0]}; maps are images with the images' names, and any suffix of images"
        )
    return [by_stem[stem] for stem in stems if stem is not None]
