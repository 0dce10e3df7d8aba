"""What every source of images is read into: the files of the images, and columns of what is known of each."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from latentdiff.errors import InputError
from latentdiff.io.stored import Stored


@dataclass
class Records:
    """Images that have not been opened.

    Attributes:
        root: What errors call the data; for a folder, what paths in its metadata are relative to.
        files: The images.
        known: Columns of `KNOWN`, each with a value for every image: text is a caption or a list of them, label a name
            or a number from 0, objects a list of {"class": ..., "box": ...}, label_map a file.
        metadata: All else that the source says of each image, or nothing.
        boxes: The format of the boxes, and whether they are in pixels; None where the recipe has to say.
        notes: What was left out, a line each.
        damaged: Files that could be opened in part only, and why.
        parts: The files whose size and time tell whether anything changed.
        identity: Tells the same of what is no file.
    """

    root: Path
    files: Sequence[Stored]
    known: dict[str, list[Any]] = field(default_factory=dict)
    metadata: Sequence[Mapping[str, Any]] = ()
    boxes: tuple[str, bool] | None = None
    notes: list[str] = field(default_factory=list)
    damaged: list[tuple[str, str]] = field(default_factory=list)
    parts: Sequence[Path] = ()
    identity: str = ""

    def fingerprint(self) -> str:
        """Changes with the images: which they are, and the sizes and times of their files."""
        digest = hashlib.sha256(self.identity.encode())
        for path in self.parts:
            stat = path.stat()
            digest.update(f"{path} {stat.st_size} {stat.st_mtime_ns}\n".encode())
        for file in self.files:
            digest.update(f"{file}\n".encode())
        return digest.hexdigest()

    def chosen(self, places: Sequence[int]) -> Records:
        """The same with these images alone."""
        known = {name: [column[place] for place in places] for name, column in self.known.items()}
        files = [self.files[place] for place in places]
        metadata = [self.metadata[place] for place in places] if self.metadata else ()
        return Records(
            self.root, files, known, metadata, self.boxes, self.notes, self.damaged, self.parts, self.identity
        )


ADVICE = {
    "text": "a text-conditional model needs a caption of each",
    "label": "give each image its class",
    "objects": "give images without objects an empty list",
    "label_map": "give each image its map",
}


def check_known(records: Records) -> Records:
    """The records, whose columns have a value for every image.

    Raises:
        InputError: If some images lack what others have: how many, and the first of them; or if classes are not all
            names, or all numbers from 0.
    """
    for name, column in list(records.known.items()):
        absent = [place for place, value in enumerate(column) if _is_missing(name, value)]
        if len(absent) == len(column):
            del records.known[name]
        elif absent:
            first = records.files[absent[0]].name
            raise InputError(
                f"{records.root}: {len(absent)} of {len(column)} images have no {name}, the first is {first}; "
                f"{ADVICE[name]}, or leave these images out"
            )
    classes = records.known.get("label", [])
    for file, label in zip(records.files, classes, strict=bool(classes)):
        named = isinstance(classes[0], str)
        if type(label) not in (int, str) or isinstance(label, str) != named or (not named and label < 0):
            raise InputError(
                f"{records.root}: the label of {file.name} is {label!r}; give a name, or a number from 0, for all alike"
            )
    return records


def _is_missing(name: str, value: Any) -> bool:
    return value is None or (name == "text" and (value == [] or not str(value).strip()))
