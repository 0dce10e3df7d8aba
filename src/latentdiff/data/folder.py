"""A folder of images, with captions in `metadata.jsonl` as Hugging Face's imagefolder has them."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch.utils.data import Dataset

from latentdiff.errors import InputError
from latentdiff.io.images import IMAGE_SUFFIXES, centre_square, load_image, to_tensor


class ImageFolder(Dataset[torch.Tensor]):
    """Images as tensors (3, resolution, resolution) in [-1, 1]: the centre square, resized.

    Args:
        root: Folder; `metadata.jsonl` in it names the images (`file_name`) and captions (`text`), else every image in
            it counts, without captions.
        resolution: Side of the tensors in pixels.

    Attributes:
        paths: The image files.
        captions: One caption an image, or None where there is no metadata.

    Raises:
        InputError: If the folder is missing, holds no image, or the metadata names a missing file or lacks a column.
    """

    def __init__(self, root: str | Path, resolution: int) -> None:
        self.root, self.resolution = Path(root), resolution
        if not self.root.is_dir():
            raise InputError(f"{root} is not a folder; give a folder of images")
        metadata = self.root / "metadata.jsonl"
        self.paths: list[Path]
        self.captions: list[str] | None
        self.paths, self.captions = _read_metadata(metadata) if metadata.exists() else (_images(self.root), None)
        if not self.paths:
            raise InputError(f"{root} holds no images; known suffixes are {', '.join(sorted(IMAGE_SUFFIXES))}")

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> torch.Tensor:
        return to_tensor(centre_square(load_image(self.paths[index]), self.resolution))


def _images(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)


def _read_metadata(metadata: Path) -> tuple[list[Path], list[str]]:
    paths, captions = [], []
    for number, line in enumerate(metadata.read_text(encoding="utf-8").splitlines(), 1):
        try:
            row = json.loads(line)
            name, caption = row["file_name"], row["text"]
        except (ValueError, KeyError, TypeError):
            raise InputError(
                f"{metadata} line {number}: needs JSON with 'file_name' and 'text'; mend the line"
            ) from None
        paths.append(metadata.parent / name)
        captions.append(str(caption))
    missing = next((path for path in paths if not path.exists()), None)
    if missing is not None:
        raise InputError(f"{metadata} names {missing.name}, which does not exist; restore the file or drop the line")
    return paths, captions
