"""Records: what every source of images is read into, the files of the images and columns of what is known of each."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from latentdiff.errors import InputError
from latentdiff.io.stored import Stored
from latentdiff.types import JSON

Column = list[Any]
"""A value for each image; see `Records` for the type of the values."""


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
        notes: Lines that say what was left out.
        damaged: Files that could be read in part only, each with the reason.
        watched: The files whose sizes and times change when the data changes.
        identity: A text that changes when data changes that is in no file.
    """

    root: Path
    files: Sequence[Stored]
    columns: dict[str, Column] = field(default_factory=dict)
    metadata: Sequence[JSON] = ()
    boxes: tuple[str, bool] | None = None
    notes: list[str] = field(default_factory=list)
    damaged: list[tuple[str, str]] = field(default_factory=list)
    watched: Sequence[Path] = ()
    identity: str = ""

    def fingerprint(self) -> str:
        """A text that changes when other images are in the data, or when their files' sizes or times change."""
        digest = hashlib.sha256(self.identity.encode())
        for path in self.watched:
            stat = path.stat()
            digest.update(f"{path} {stat.st_size} {stat.st_mtime_ns}\n".encode())
        for file in self.files:
            digest.update(f"{file}\n".encode())
        return digest.hexdigest()

    def subset(self, places: Sequence[int]) -> Records:
        """The same records with these images alone."""
        return replace(
            self,
            files=[self.files[place] for place in places],
            columns={name: [column[place] for place in places] for name, column in self.columns.items()},
            metadata=[self.metadata[place] for place in places] if self.metadata else (),
        )


ADVICE = {
    "text": "a text-conditional model needs a caption of each",
    "label": "give each image its class",
    "objects": "give images without objects an empty list",
    "label_map": "give each image its map",
}


def check_columns(records: Records) -> Records:
    """Check that every column has a value for every image, and return the records; empty columns are dropped.

    Raises:
        InputError: If some images lack what others have (the message says how many, and names the first), or if classes
            are neither all names nor all numbers from 0.
    """
    for name, column in list(records.columns.items()):
        absent = [place for place, value in enumerate(column) if _is_missing(name, value)]
        if len(absent) == len(column):
            del records.columns[name]
        elif absent:
            first = records.files[absent[0]].name
            raise InputError(
                f"{records.root}: {len(absent)} of {len(column)} images have no {name}, the first is {first}; "
                f"{ADVICE[name]}, or leave these images out"
            )
    if classes := records.columns.get("label"):
        named = isinstance(classes[0], str)
        for file, label in zip(records.files, classes, strict=True):
            if type(label) not in (int, str) or isinstance(label, str) != named or (not named and label < 0):
                raise InputError(
                    f"{records.root}: the label of {file.name} is {label!r}; "
                    "give a name, or a number from 0, for all alike"
                )
    return records


def _is_missing(name: str, value: object) -> bool:
    """Whether an image has no value in a column; a caption without letters is none."""
    return value is None or (name == "text" and (value == [] or not str(value).strip()))
