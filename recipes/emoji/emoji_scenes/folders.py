"""Image folders in the Hugging Face convention: PNG files beside a ``metadata.jsonl``."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from latentdiff.io.files import atomic_folder

Drawn = tuple[Image.Image, Mapping[str, Any]]
"""An image and what is known of it: a row of the metadata, in which a ``label_map`` is an image."""


def write_images(folder: Path, images: Iterable[Drawn]) -> Path:
    """An image folder of (image, what is known of it), unless it is there; a `label_map` image becomes a file."""
    if folder.exists():
        return folder
    with atomic_folder(folder) as aside, (aside / "metadata.jsonl").open("w", encoding="utf-8") as lines:
        for number, (image, known) in enumerate(images):
            row = {"file_name": f"{number:05d}.png", **known}
            image.save(aside / row["file_name"])
            if "label_map" in known:
                row["label_map"] = f"maps/{number:05d}.png"
                (aside / "maps").mkdir(exist_ok=True)
                known["label_map"].save(aside / row["label_map"])
            lines.write(json.dumps(row) + "\n")
    return folder


def read_images(folder: Path, limit: int) -> tuple[list[dict[str, Any]], NDArray[np.floating[Any]]]:
    """The first lines of an image folder's metadata, and their images (B, H, W, 3) in [0, 1]."""
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text(encoding="utf-8").splitlines()[:limit]]
    return rows, np.stack([np.asarray(Image.open(folder / row["file_name"])) for row in rows]) / 255
