"""A folder of images, with captions, classes, objects and label maps as Hugging Face's imagefolder has them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch.utils.data import Dataset

from latentdiff.errors import InputError
from latentdiff.io.images import IMAGE_SUFFIXES, centre_square, load_image, to_tensor

COLUMNS = ("text", "label", "objects", "label_map")


class ImageFolder(Dataset[torch.Tensor]):
    """Images as tensors (3, resolution, resolution) in [-1, 1]: the centre square, resized.

    Args:
        root: Folder. `metadata.jsonl` in it names the images (`file_name`), and what is known of them: captions
            (`text`), classes (`label`, all names or all numbers from 0), objects (`objects`, a list of
            `{"class": ..., "box": ...}`) and label maps (`label_map`, a file). Without it every image in the folder
            counts, and where all of them lie in sub-folders, those are the classes.
        resolution: Side of the tensors in pixels.

    Attributes:
        paths: The image files.
        metadata: The lines of the metadata, none without it.
        captions: One caption an image, or None.
        labels: The number of each image's class, or None.
        class_names: Names of the classes, sorted, by number; None where the metadata has numbers.
        objects: The objects in each image as the metadata has them, or None.
        label_maps: The file of each image's label map, or None.

    Raises:
        InputError: If the folder is missing, holds no image, or the metadata names a missing file or has a column that
            isn't filled in every line.
    """

    metadata: list[dict[str, Any]]
    captions: list[str] | None = None
    labels: list[int] | None = None
    class_names: list[str] | None = None
    objects: list[Any] | None = None
    label_maps: list[Path] | None = None

    def __init__(self, root: str | Path, resolution: int) -> None:
        self.root, self.resolution = Path(root), resolution
        if not self.root.is_dir():
            raise InputError(f"{root} is not a folder; give a folder of images")
        self.metadata, metadata = [], self.root / "metadata.jsonl"
        if metadata.exists():
            self.metadata = rows = _read_metadata(metadata)
            self.paths = [self.root / row["file_name"] for row in rows]
            captions, classes, objects, maps = ([row[name] for row in rows if name in row] for name in COLUMNS)
            self.captions = [str(caption) for caption in captions] or None
            self.objects, self.label_maps = objects or None, [self.root / name for name in maps] or None
        else:
            self.paths = sorted(path for path in self.root.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
            parts = [path.relative_to(self.root).parts for path in self.paths]
            classes = [first for first, *rest in parts] if all(len(names) > 1 for names in parts) else []
        if not self.paths:
            raise InputError(f"{root} holds no images; known suffixes are {', '.join(sorted(IMAGE_SUFFIXES))}")
        if classes:
            named = isinstance(classes[0], str)
            self.class_names = sorted(set(classes)) if named else None
            numbers = {name: number for number, name in enumerate(self.class_names or ())}
            self.labels = [numbers[name] for name in classes] if named else classes

    @property
    def num_classes(self) -> int:
        """Number of classes; those of numbers alone end with the largest. 0 where there are none."""
        return max(self.labels) + 1 if self.labels else 0

    def __len__(self) -> int:
        return len(self.paths)

    def square(self, index: int) -> Image.Image:
        """Image `index` as RGB pixels: the centre square, resized."""
        return centre_square(load_image(self.paths[index]), self.resolution)

    def __getitem__(self, index: int) -> torch.Tensor:
        return to_tensor(self.square(index))


def _read_metadata(metadata: Path) -> list[dict[str, Any]]:
    """The lines, all of which have the same of `COLUMNS`."""
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(metadata.read_text(encoding="utf-8").splitlines(), 1):
        try:
            row = json.loads(line)
            files = [row[name] for name in ("file_name", "label_map") if name == "file_name" or name in row]
            absent = [file for file in files if not (metadata.parent / file).exists()]
        except (ValueError, KeyError, TypeError):
            raise InputError(
                f"{metadata} line {number}: needs JSON with 'file_name' (and 'label_map') as paths; mend the line"
            ) from None
        if absent:
            raise InputError(f"{metadata} names {absent[0]}, which does not exist; restore the file or drop the line")
        rows.append(row)
        for column in COLUMNS:
            if (column in row) != (column in rows[0]):
                raise InputError(f"{metadata} line {number}: {column!r} is in some lines only; give it in all or none")
        label, first = row.get("label", 0), rows[0].get("label", 0)
        if type(label) not in (int, str) or type(label) is not type(first) or (isinstance(label, int) and label < 0):
            raise InputError(
                f"{metadata} line {number}: the label is {label!r}; give a name, or a number from 0, in all lines alike"
            )
    return rows
