"""Records: what every source of images is read into, the files of the images and columns of what is known of each."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentdiff.data.names import relative_name
from latentdiff.data.walk import identity
from latentdiff.errors import InputError
from latentdiff.io.stored import Cell, Stored, TarMember
from latentdiff.labels import plain_name
from latentdiff.types import JSON

OBJECT_KEYS = {"class": ("category", "categories", "label", "labels"), "box": ("bbox", "bboxes", "boxes")}
Size = tuple[int, int]
"""Width and height in pixels."""
Column = list[Any]
"""A value for each image; see `Records` for the type of the values."""


@dataclass(frozen=True)
class Mixture:
    """Several data sets whose images stand in one row.

    Attributes:
        sources: The number of the data set of each image.
        weights: The share of the samples that each data set has, in any unit.
        names: What they are called.
        identities: The `identity` of each data set's records.
    """

    sources: NDArray[np.int64]
    weights: tuple[float, ...]
    names: tuple[str, ...]
    identities: tuple[str, ...]

    def subset(self, places: Sequence[int]) -> Mixture:
        """The same data sets with these images alone."""
        return replace(self, sources=self.sources[np.asarray(places, np.int64)])


@dataclass
class Records:
    """Images that have not been opened.

    Attributes:
        root: The name of the data in errors; for a folder, the folder to which paths in its metadata are relative.
        files: The images.
        columns: What is known of the images, by the names in `KNOWN`: "text" is a caption or a list of captions,
            "label" a name or a number from 0, "objects" a list of {"class": ..., "box": ...}, "label_map" a file.
        metadata: All else that the source says of each image; may be empty.
        boxes: The format of the boxes, and whether they are in pixels; None if the recipe has to say it.
        frames: Width and height of each image that boxes in pixels are of, None where they are those of the file; empty
            if the source says nothing of it.
        notes: Lines that say what was left out, of which a run warns.
        ignored: Lines on what was left out as nobody will miss it, which a check says.
        damaged: Files that could be read in part only, each with the reason.
        watched: The files whose sizes and times change when the data changes.
        identity: A text that changes when data changes that is in no file.
        mixture: The data sets that the images are of, if they are of several.
    """

    root: Path
    files: Sequence[Stored]
    columns: dict[str, Column] = field(default_factory=dict)
    metadata: Sequence[JSON] = ()
    boxes: tuple[str, bool] | None = None
    frames: Sequence[Size | None] = ()
    notes: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    damaged: list[tuple[str, str]] = field(default_factory=list)
    watched: Sequence[Path] = ()
    identity: str = ""
    mixture: Mixture | None = None

    def fingerprint(self) -> str:
        """A text that changes when other images are in the data, or when their files' sizes or times change."""
        digest = hashlib.sha256(self.identity.encode())
        for path in self.watched:
            try:
                stat = path.stat()
                facts = f"{stat.st_size} {stat.st_mtime_ns}"
            except OSError:  # a link to nothing, which is a bad file
                facts = "missing"
            digest.update(os.fsencode(f"{path} {facts}\n"))
        for file in self.files:
            digest.update(os.fsencode(f"{file}\n"))
        return digest.hexdigest()

    def name_of(self, place: int) -> str:
        """What messages call an image: its path in the folder, if it is a file there."""
        file = self.files[place]
        return (relative_name(file, self.root) if isinstance(file, Path) else None) or str(file)

    def frame(self, place: int) -> Size | None:
        """Width and height that the source says the boxes of an image are of; None if it doesn't."""
        return self.frames[place] if self.frames else None

    def keys(self) -> list[Hashable]:
        """What is the same for one image under several names, and another for every image."""
        archives = {file.archive: identity(file.archive) for file in self.files if isinstance(file, TarMember)}

        def key(place: int, file: Stored) -> Hashable:
            if isinstance(file, TarMember):
                return archives[file.archive], file.offset
            if not isinstance(file, Cell):
                return identity(str(file))
            mixture = self.mixture
            return self.identity if mixture is None else mixture.identities[mixture.sources[place]], file.row

        return [key(place, file) for place, file in enumerate(self.files)]

    def without(self, others: Records) -> Records:
        """The same records without the images that others have, too; a note says how many."""
        taken = set(others.keys())
        kept = [place for place, key in enumerate(self.keys()) if key not in taken]
        if not kept:
            raise InputError(f"all images of {self.root} are in {others.root}, too, which is held out; give others")
        if len(kept) == len(self.files):
            return self
        found = self.subset(kept)
        for number, name in enumerate(found.mixture.names if found.mixture else ()):
            if found.mixture and number not in found.mixture.sources:
                raise InputError(f"all images of {name} are in {others.root}, too, which is held out; give others")
        found.notes.append(f"{len(self.files) - len(kept)} images of {self.root} are held out, not trained on")
        return found

    def subset(self, places: Sequence[int]) -> Records:
        """The same records with these images alone."""
        return replace(
            self,
            files=[self.files[place] for place in places],
            columns={name: [column[place] for place in places] for name, column in self.columns.items()},
            metadata=[self.metadata[place] for place in places] if self.metadata else (),
            frames=[self.frames[place] for place in places] if self.frames else (),
            mixture=self.mixture.subset(places) if self.mixture else None,
        )


MOST_CLASSES = 2**20  # a larger number is an id, for which a model would have an embedding of all numbers below
ADVICE = {
    "text": "a text-conditional model needs a caption of each",
    "label": "give each image its class",
    "objects": "give images without objects an empty list",
    "label_map": "give each image its map",
}
VALUES = {
    "text": "a caption, or a list of captions",
    "label": f"a name, or a number from 0 to {MOST_CLASSES - 1}, for all alike",
    "objects": "a list of {'class': ..., 'box': ...}",
    "label_map": "an image",
}
# What programs write for a value that is missing: pandas and spreadsheets. No class is called that, while one may be
# called None. As a caption, that is none either, nor are the null of JSON, and what JavaScript and people write.
NO_VALUE = frozenset({"nan", "NaN", "NAN", "<NA>", "#N/A"})
PLACEHOLDERS = NO_VALUE | {"None", "null", "NULL", "undefined", "N/A", "n/a"}
INVISIBLE = "\u200b\u200c\u200d\u2060\ufeff"  # marks of no width, which are no blanks to Python


def check_columns(records: Records) -> Records:
    """Check that every column has a value for every image, and return the records; empty columns are dropped.

    Raises:
        InputError: If some images lack what others have (the message says how many, and names the first), or if classes
            are neither all names nor all numbers from 0, or something is no such value at all (the message names the
            image).
    """
    if "label" in records.columns:
        labels = records.columns["label"]
        records.columns["label"] = [plain_name(label) if isinstance(label, str) else label for label in labels]
    if "objects" in records.columns:
        records.columns["objects"] = list(map(as_objects, records.columns["objects"]))
    for name, column in list(records.columns.items()):
        absent = [place for place, value in enumerate(column) if _is_missing(name, value)]
        if len(absent) == len(column):
            del records.columns[name]
            continue
        if absent:
            raise InputError(
                f"{records.root}: {len(absent)} of {len(column)} images have no {name}, the first is "
                f"{records.name_of(absent[0])}; {ADVICE[name]}, or leave these images out"
            )
        valid = _CHECKS[name]
        named = isinstance(column[0], str)
        for place, value in enumerate(column):
            if not valid(value) or (name == "label" and isinstance(value, str) != named):
                raise InputError(
                    f"{records.root}: the {name} of {records.name_of(place)} is {value!r}; give {VALUES[name]}"
                )
    return records


def _is_missing(column: str, value: object) -> bool:
    """Whether a value is none, in any of its disguises; a caption without letters is none."""
    if isinstance(value, str):
        text = value.strip().strip(INVISIBLE)
        return not text.strip() or text in (PLACEHOLDERS if column == "text" else NO_VALUE)
    return value is None or (isinstance(value, float) and math.isnan(value)) or (column == "text" and value == [])


def _is_caption(value: object) -> bool:
    """Whether a value is a caption, or a list of captions that isn't empty; null characters are those of UTF-16."""
    texts = value if isinstance(value, list) else [value]
    return bool(texts) and all(
        isinstance(text, str) and "\0" not in text and not _is_missing("text", text) for text in texts
    )


def _is_label(value: object) -> bool:
    return type(value) is str or (type(value) is int and 0 <= value < MOST_CLASSES)


def as_objects(value: object) -> object:
    """Objects as a list of mappings with "class" and "box".

    A mapping of lists, as data sets of `datasets` have it, becomes such a list, without what else it has, such as `id`.
    Instead of "class" there may be "category" or "label", instead of "box" "bbox".
    """
    if isinstance(value, list):
        return [_renamed(item) if isinstance(item, dict) else item for item in value]
    if not isinstance(value, dict):
        return value
    columns = {known: items for known, items in _renamed(value).items() if known in OBJECT_KEYS}
    if not columns or not all(isinstance(items, list) for items in columns.values()):
        return value
    if len({len(items) for items in columns.values()}) > 1:
        return value
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _renamed(item: JSON) -> JSON:
    """An object with "class" and "box" in place of the other names that these may have."""
    renamed = dict(item)
    for known, others in OBJECT_KEYS.items():
        other = next((name for name in others if name in renamed), None)
        if known not in renamed and other is not None:
            renamed[known] = renamed.pop(other)
    return renamed


_CHECKS: dict[str, Callable[[object], bool]] = {
    "text": _is_caption,
    "label": _is_label,
    "objects": lambda value: isinstance(value, list),
    "label_map": lambda value: True,
}
