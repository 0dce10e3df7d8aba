"""The images of a study: folders whose files have equal names, each read once before anybody is asked about it."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from latentdiff.data.walk import walk
from latentdiff.errors import BadFileError, InputError
from latentdiff.io.images import load_image
from latentdiff.io.stored import IMAGE_SUFFIXES, read_into_memory

MOSAIC = 8  # squares along the longer side of a degraded image
EVIDENT = 5.0  # mean difference in steps of 8 bits from which on a degraded image is evidently that
PNG_LEVEL = 1  # of compression: images are made for each view, and sent over a short way


@dataclass(frozen=True)
class ImageFile:
    """An image of a study.

    Attributes:
        path: Its file.
        sha256: The hash of the file's bytes.
        size: Width and height in pixels.
    """

    path: Path
    sha256: str
    size: tuple[int, int]

    def load(self) -> Image.Image:
        """The image as RGB.

        Raises:
            BadFileError: If the file is gone, damaged or another one than when the study was opened.
        """
        image, found = _read(self.path)
        if found != self:
            raise BadFileError(f"{self.path} has changed since the study was opened; put the old file back")
        return image


def find_images(folder: str | Path) -> dict[str, Path]:
    """The images in a folder and its sub-folders by name, which is the path in the folder without suffix.

    Raises:
        InputError: If it is no folder, has no images, or two of one name.
    """
    root = Path(folder)
    if not root.is_dir():
        raise InputError(f"{folder} is no folder; give one with images")
    found: dict[str, Path] = {}
    for path in walk(root).images:
        # File names may be any bytes, databases take text.
        name = os.fsencode(path.relative_to(root).with_suffix("").as_posix()).decode(errors="backslashreplace")
        if path.suffix.lower() not in IMAGE_SUFFIXES:
            continue
        if name in found:
            raise InputError(f"{found[name]} and {path} have one name; a study needs one image of a name, remove one")
        found[name] = path
    if not found:
        raise InputError(f"{folder} has no images; give a folder with {', '.join(IMAGE_SUFFIXES)} files")
    return found


def check_names(
    first: Path, names: Mapping[str, Path], other: Path, others: Mapping[str, Path], both_ways: bool
) -> None:
    """Check that one folder's images have counterparts of the same names in another.

    Args:
        first: The folder.
        names: Its images by name.
        other: The other folder.
        others: Its images by name.
        both_ways: Whether the other folder may have no more than these.

    Raises:
        InputError: If a name is missing.
    """
    if not names.keys() & others.keys():
        raise InputError(
            f"{first} and {other} have no image of the same name (one has {min(names)}, the other {min(others)}); "
            "give files that belong together equal names"
        )
    for lacking, having, gaps in ((other, first, names.keys() - others), (first, other, others.keys() - names)):
        if gaps and (both_ways or lacking == other):
            more = f" and {len(gaps) - 1} more" if len(gaps) > 1 else ""
            raise InputError(f"{lacking} lacks {min(gaps)}{more}, of which {having} has images; give both equal names")


def read_images(files: Mapping[str, Path], done: Callable[[int], None]) -> dict[str, ImageFile]:
    """Read every image once.

    Args:
        files: A name to its file.
        done: Hears of each image.

    Raises:
        BadFileError: If one can't be read.
    """

    def read(item: tuple[str, Path]) -> tuple[str, ImageFile]:
        result = item[0], _read(item[1])[1]
        done(1)
        return result

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        return dict(threads.map(read, files.items()))


def _read(path: Path) -> tuple[Image.Image, ImageFile]:
    stored = read_into_memory(path)
    image = load_image(stored)
    return image, ImageFile(path, hashlib.sha256(stored.content).hexdigest(), image.size)


def degraded(image: Image.Image) -> Image.Image:
    """The image as a mosaic of a few squares: nobody who looks at it takes it for the better one."""
    scale = MOSAIC / max(image.size)
    few = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(few, Image.Resampling.BOX).resize(image.size, Image.Resampling.NEAREST)


def is_evident(image: Image.Image) -> bool:
    """Whether the degraded copy of an image differs from it clearly, as that of a plain or a tiny one does not."""
    pixels, mosaic = (np.asarray(picture, dtype=np.float32) for picture in (image, degraded(image)))
    return bool(np.abs(pixels - mosaic).mean() >= EVIDENT)


def as_png(image: Image.Image) -> bytes:
    """The pixels as a PNG file, without the texts of the image's own file, which may say what made it."""
    content = io.BytesIO()
    Image.frombytes("RGB", image.size, image.tobytes()).save(content, "PNG", compress_level=PNG_LEVEL)
    return content.getvalue()
