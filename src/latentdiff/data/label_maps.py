"""The label maps of a data set: indexed, grey or coloured files, in which 255 stands for pixels of no class."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import suppress

import numpy as np
import torch
from PIL import Image

from latentdiff.data.frames import ADVICE, orientation_of
from latentdiff.data.images import Images
from latentdiff.data.views import View
from latentdiff.errors import BadFileError, InputError, LatentDiffWarning
from latentdiff.io.arrays import size_of
from latentdiff.io.images import read_pixels, upright_size
from latentdiff.io.label_maps import read_label_map, resize_label_map
from latentdiff.io.stored import Stored

IGNORE_INDEX = 255
WHITE = (255, 255, 255)
BINARY = (
    "the label maps have the values 0 and 255 alone, and 255 stands for pixels of no class, so they have one class; "
    "for two, give conditioning.segmentation_encoder the palette [[0, 0, 0], [255, 255, 255]], or save white as 1"
)
NO_CLASS = "the label maps have the value 255 alone, which stands for pixels of no class; number the classes from 0"
# A map of more values whose pixels mostly differ from their left neighbours is no map of classes.
MOST_VALUES, MOST_BORDERS = 64, 0.5


class LabelMaps:
    """`Rows` with the label maps of images as `maps`, int64 (H, W), cut, mirrored and turned as the images are.

    All maps are read once when it is made.

    Args:
        images: The images.
        num_classes: Number of classes.
        palette: The colour of each class, by which coloured files are read and with which indexed files must agree;
            None if the classes have no colours.

    Raises:
        InputError: If there are no maps, or one has another size than its image, a number or colour of no class, or
            indices in other colours; or if two classes are meant by maps of 0 and 255.
    """

    def __init__(self, images: Images, num_classes: int, palette: Sequence[Sequence[int]] | None) -> None:
        self.paths = paths_of(images)
        self.num_classes, self.palette = num_classes, palette
        values: set[int] = set()
        for path, image in zip(self.paths, images.files, strict=True):
            with suppress(BadFileError):  # in training, another sample takes its place
                check_map_size(path, image)
                values.update(values_in(read_training_map(path, num_classes, palette)))
        if values == {IGNORE_INDEX}:
            raise InputError(NO_CLASS)
        if is_binary(values):
            if num_classes <= 2:
                raise InputError(BINARY)
            warnings.warn(LatentDiffWarning(BINARY), stacklevel=2)

    def __call__(self, image: int, view: View, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        """The map of an image at one visit, as the protocol `Rows` describes."""
        label_map = read_training_map(self.paths[image], self.num_classes, self.palette)
        left, top, right, bottom = view.box(*label_map.shape)
        part = resize_label_map(label_map[top:bottom, left:right], view.size)
        return {"maps": view.lay(part)}


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
    # White as index 255, as in a black and white picture that was converted, is a class if the palette has white.
    white = image.mode == "P" and colours is not None and colours_of(image)[IGNORE_INDEX] == WHITE and WHITE in colours
    indexed = image.mode == "P" and not white
    read_by = None if indexed else colours
    label_map = read_label_map(image, num_classes, palette=read_by, ignore_index=IGNORE_INDEX, name=name)
    if indexed and colours is not None:
        own = colours_of(image)
        for number in values_in(label_map) - {IGNORE_INDEX}:
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
        InputError: If no pixel has a class, a map looks like a photograph, or the maps have 0 and 255 alone.
    """
    values: set[int] = set()
    bad = None
    for path in paths:
        try:
            image = read_pixels(path, lambda image: image)
        except BadFileError as error:
            bad = error
            continue
        numbers = read_label_map(image, IGNORE_INDEX, ignore_index=IGNORE_INDEX, name=f"label map {path}")
        check_no_photograph(numbers, path)
        values |= values_in(numbers)
    if not values and bad is not None:
        raise InputError(f"no label map can be read, the last: {bad}")
    if values <= {IGNORE_INDEX}:
        raise InputError(NO_CLASS)
    if is_binary(values):
        raise InputError(BINARY)
    return max(values - {IGNORE_INDEX}) + 1


def values_in(label_map: torch.Tensor) -> set[int]:
    """The numbers that occur in a map, `IGNORE_INDEX` among them."""
    return set(np.flatnonzero(np.bincount(label_map.numpy().ravel(), minlength=1)).tolist())


def is_binary(values: set[int]) -> bool:
    """Whether 0 and 255 are all numbers in the maps of a data set, which then are black and white pictures."""
    return values == {0, IGNORE_INDEX}


def check_no_photograph(label_map: torch.Tensor, path: Stored) -> None:
    """InputError if a grey map has so many numbers, and so few even areas, that it must be a picture of something."""
    different = (label_map[:, 1:] != label_map[:, :-1]).float().mean() if label_map.shape[1] > 1 else 0
    if different > MOST_BORDERS and (count := len(values_in(label_map))) > MOST_VALUES:
        raise InputError(
            f"label map {path} has {count} different values, and most pixels differ from their neighbours, as in a "
            "photograph; give a map with a class number for each pixel"
        )


def check_map_size(path: Stored, image: Stored) -> None:
    """Check that a label map has the size of its image.

    Raises:
        BadFileError: If one of them can't be decoded.
        InputError: If the sizes differ, or the image is turned by EXIF, the map isn't, and the sizes don't tell which
            of the two the map is of.
    """
    (height, width), (rows, columns) = size_of(image), upright_size(path)
    if (height, width) != (rows, columns):
        given = f"label map {path} is {columns}x{rows} pixels, its image {width}x{height}"
        raise InputError(f"{given}; give a map of the image's size")
    orientation = orientation_of(image)
    if orientation > 1 and orientation != orientation_of(path) and (orientation <= 4 or height == width):
        raise InputError(
            f"{image} is turned by its EXIF orientation {orientation}, and its size does not tell whether label map "
            f"{path} is of the image before or after that; {ADVICE}"
        )


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
