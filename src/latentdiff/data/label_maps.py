"""The label maps of a data set: indexed, grey or coloured files, in which 255 stands for pixels of no class."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import numpy as np
import torch
from PIL import Image

from latentdiff.data.images import Images
from latentdiff.errors import BadFileError, InputError
from latentdiff.io.arrays import size_of
from latentdiff.io.images import centre_box, read_pixels, upright_size
from latentdiff.io.label_maps import read_label_map, resize_label_map
from latentdiff.io.stored import Stored

IGNORE_INDEX = 255


class LabelMaps:
    """`Rows` with the label maps of images as `maps`, int64 (H, W), cut and mirrored as the images are.

    All maps are read once when it is made.

    Args:
        images: The images.
        num_classes: Number of classes.
        palette: The colour of each class, by which coloured files are read and with which indexed files must agree;
            None if the classes have no colours.

    Raises:
        InputError: If there are no maps, or one has another size than its image, a number or colour of no class, or
            indices in other colours.
    """

    def __init__(self, images: Images, num_classes: int, palette: Sequence[Sequence[int]] | None) -> None:
        self.paths, self.resolution = paths_of(images), images.resolution
        self.num_classes, self.palette = num_classes, palette
        for path, image in zip(self.paths, images.files, strict=True):
            try:
                (height, width), (rows, columns) = size_of(image), upright_size(path)
            except BadFileError:  # in training, another sample takes its place
                continue
            if (height, width) != (rows, columns):
                given = f"label map {path} is {columns}x{rows} pixels, its image {width}x{height}"
                raise InputError(f"{given}; give a map of the image's size")
            with suppress(BadFileError):
                read_training_map(path, num_classes, palette)

    def __call__(self, image: int, mirrored: bool, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        """The map of an image at one visit, as the protocol `Rows` describes."""
        label_map = read_training_map(self.paths[image], self.num_classes, self.palette)
        left, top, right, bottom = centre_box(*label_map.shape)
        square = resize_label_map(label_map[top:bottom, left:right], (self.resolution, self.resolution))
        return {"maps": square.flip(-1) if mirrored else square}


def read_training_map(path: Stored, num_classes: int, palette: Sequence[Sequence[int]] | None) -> torch.Tensor:
    """Read a label map of a data set as int64 (H, W).

    An indexed file is read by its indices. Sampling reads it by its colours, so these must be those of the palette.

    Args:
        path: The file.
        num_classes: Number of classes.
        palette: The colour of each class; None if the classes have no colours.

    Raises:
        BadFileError: If it can't be decoded.
        InputError: If it has a number or colour of no class, or an index in another colour than the palette's.
    """
    image, name = read_pixels(path, lambda image: image), f"label map {path}"
    colours = None if palette is None else [tuple(colour) for colour in palette]
    read_by = colours if image.mode.startswith("RGB") else None
    label_map = read_label_map(image, num_classes, palette=read_by, ignore_index=IGNORE_INDEX, name=name)
    if image.mode == "P" and colours is not None:
        own = colours_of(image)
        for number in _classes_in(label_map):
            if own[number] != colours[number]:
                raise InputError(
                    f"{name} has class {number} in the colour {own[number]}, the palette says {colours[number]}; save "
                    "all maps with one palette, or in grey"
                )
    return label_map


def paths_of(images: Images) -> list[Stored]:
    """The files of the images' label maps.

    Raises:
        InputError: If the images have none.
    """
    if images.label_maps is None:
        raise InputError(
            f"{images.root} has no label maps; give 'label_map' in metadata.jsonl, or their folder as label_maps"
        )
    return images.label_maps


def count_classes(paths: Sequence[Stored]) -> int:
    """The number of classes in indexed or grey label maps: one more than the largest number in them but 255.

    Raises:
        InputError: If no pixel has a class.
    """
    largest = -1
    for path in paths:
        with suppress(BadFileError):
            image = read_pixels(path, lambda image: image)
            numbers = read_label_map(image, IGNORE_INDEX, ignore_index=IGNORE_INDEX, name=f"label map {path}")
            largest = max([largest, *_classes_in(numbers)])
    if largest < 0:
        raise InputError(f"the label maps beside {paths[0]} have no class at any pixel; number the classes from 0")
    return largest + 1


def _classes_in(label_map: torch.Tensor) -> list[int]:
    """The class numbers that occur in a map."""
    return [int(number) for number in np.unique(label_map.numpy()) if number != IGNORE_INDEX]


def indexed_palette(paths: Sequence[Stored], num_classes: int) -> list[tuple[int, ...]] | None:
    """The colours of the classes in the first map that can be read; None if it isn't indexed or two have one colour."""
    for path in paths:
        with suppress(BadFileError):
            image = read_pixels(path, lambda image: image)
            colours = colours_of(image)[:num_classes] if image.mode == "P" else []
            return colours if len(set(colours)) == num_classes else None
    return None


def colours_of(image: Image.Image) -> list[tuple[int, ...]]:
    """The 256 colours of an indexed image's palette; those that the file leaves out are black."""
    flat = (image.convert("P").getpalette("RGB") or [])[: 3 * 256]
    flat = [*flat, *[0] * (3 * 256 - len(flat))]
    return [tuple(flat[start : start + 3]) for start in range(0, 3 * 256, 3)]
