"""Reading label maps, which have a class number for each pixel, from images, arrays and tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from latentdiff.errors import InputError
from latentdiff.io.images import WHITE_IS_ZERO, read_pixels
from latentdiff.io.palettes import Colour, Palette, parse_palette
from latentdiff.types import Array

LABEL_MAP_KINDS = "a path, a Pillow image, integers (H, W), or colours of uint8 with a palette"
BYTES = (np.uint8, torch.uint8)  # three axes of bytes are a map of colours, of other integers a batch of maps


def read_label_map(
    label_map: object,
    num_classes: int,
    *,
    palette: Palette | None = None,
    class_names: Sequence[str] | None = None,
    ignore_index: int | None = None,
    name: str = "label map",
) -> Tensor:
    """Read one label map as int64 (H, W) on the CPU.

    A grey value is a class number, or, where all colours of the palette are grey and the values are theirs but no class
    numbers, a colour: in a map of 0 and 255 with a palette of black and white, white is class 1. An indexed image is
    read by its colours if a palette is given, since programs renumber the indices when they save, and by its indices
    otherwise. (With a palette, the index `ignore_index` still counts where its colour is that of no class.) Other
    colours need a palette. Transparency is ignored.

    Args:
        label_map: A path or a Pillow image, indexed, grey or coloured; an array of integers (H, W) or of colours
            (H, W, 3), uint8; or a tensor of integers (H, W) or of colours (3, H, W), uint8.
        num_classes: Number of classes, which are 0 to `num_classes - 1`.
        palette: The colours of the classes, as `parse_palette` takes them.
        class_names: The name of each class, for palettes that use names.
        ignore_index: The label of pixels that belong to no class, such as 255, which stays in the result; None if there
            is none.
        name: The name of the argument in errors.

    Raises:
        InputError: If it is none of these or can't be read, or a number or colour is of no class: the message says
            which, where, and what is allowed. Also if the palette is not valid, or `ignore_index` is a class.
    """
    _check_ignore_index(num_classes, ignore_index)
    colours = None if palette is None else parse_palette(palette, num_classes, class_names, ignore_index)
    if isinstance(label_map, (str, Path)):
        name = f"{name} {label_map}"
    indices = None
    if isinstance(label_map, (str, Path, Image.Image)):
        pixels, indices = read_pixels(label_map, lambda image: _from_image(image, colours is not None, name), name)
    else:
        pixels = _from_array(label_map, name)
    if pixels.ndim == 3:
        pixels = _classes_of_colours(pixels, colours, name, indices, ignore_index)
    elif colours is not None and isinstance(label_map, (str, Path, Image.Image)) and pixels.dtype in (bool, np.uint8):
        pixels = _classes_of_greys(pixels, colours, num_classes, name)
    allowed = (pixels >= 0) & (pixels < num_classes)
    if ignore_index is not None:
        allowed |= pixels == ignore_index
    if not allowed.all():
        ignored = "" if ignore_index is None else f", and {ignore_index} to ignore"
        value, where = _first(pixels, ~allowed)
        raise InputError(f"{name} has the value {value} {where}; allowed: 0 to {num_classes - 1}{ignored}")
    return torch.from_numpy(pixels.astype(np.int64))


def read_label_maps(
    label_maps: object,
    num_classes: int,
    *,
    palette: Palette | None = None,
    class_names: Sequence[str] | None = None,
    ignore_index: int | None = None,
    name: str = "label map",
) -> Tensor:
    """Read one or several label maps of one size as int64 (B, H, W).

    Args:
        label_maps: One label map, as `read_label_map` takes it; a list of them; or integers (B, H, W) of more than 8
            bits.
        num_classes: Number of classes.
        palette: The colours of the classes, as in `read_label_map`.
        class_names: The name of each class, for palettes that use names.
        ignore_index: The label of pixels that belong to no class, as in `read_label_map`.
        name: The name of the argument in errors.

    Raises:
        InputError: If there are none, one can't be read (see `read_label_map`), or they differ in size.
    """

    def read(item: object, name: str) -> Tensor:
        return read_label_map(
            item, num_classes, palette=palette, class_names=class_names, ignore_index=ignore_index, name=name
        )

    if isinstance(label_maps, (np.ndarray, Tensor)) and label_maps.ndim == 3 and label_maps.dtype not in BYTES:
        label_maps = list(label_maps)
    if not isinstance(label_maps, (list, tuple)):
        return read(label_maps, name)[None]
    maps = [read(item, f"{name} {number}") for number, item in enumerate(label_maps)]
    sizes = list(dict.fromkeys(f"{found.shape[1]}x{found.shape[0]}" for found in maps))
    if len(sizes) != 1:
        given = f"one is {sizes[0]} pixels, another {sizes[1]}" if sizes else "none is given"
        raise InputError(f"{name}: {given}; give one or more of equal size")
    return torch.stack(maps)


def one_hot(label_maps: Tensor, num_classes: int, ignore_index: int | None = None) -> Tensor:
    """Label maps (B, H, W) as float32 (B, num_classes, H, W); ignored pixels are zero in all channels."""
    _check_ignore_index(num_classes, ignore_index)
    kept = torch.ones_like(label_maps) if ignore_index is None else (label_maps != ignore_index).long()
    batch, height, width = label_maps.shape
    channels = torch.zeros(batch, num_classes, height, width, device=label_maps.device)
    return channels.scatter_(1, (label_maps * kept)[:, None], kept[:, None].float())


def resize_label_map(label_map: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize a label map (..., H, W) to a height and width; the nearest pixel is taken, since labels can't be mixed."""
    rows, columns = (
        ((torch.arange(new, device=label_map.device) + 0.5) * (old / new)).long()
        for new, old in zip(size, label_map.shape[-2:], strict=True)
    )
    return label_map[..., rows[:, None], columns]


def _check_ignore_index(num_classes: int, ignore_index: int | None) -> None:
    if ignore_index is not None and 0 <= ignore_index < num_classes:
        raise InputError(f"ignore_index is {ignore_index}, one of the {num_classes} classes; choose another number")


def _from_image(image: Image.Image, by_colour: bool, name: str) -> tuple[Array, Array | None]:
    """The class numbers (H, W) or colours (H, W, 3) of an image, and the indices if it is indexed and has colours."""
    if image.format in ("JPEG", "MPO"):
        raise InputError(f"{name} is a JPEG, whose compression changes labels; give a PNG")
    if image.info.get(WHITE_IS_ZERO):
        raise InputError(f"{name} is a TIFF whose value 0 is white, so that its class numbers are open; give a PNG")
    if image.mode == "F":
        raise InputError(f"{name} holds floats; give integers, such as a PNG has")
    if image.mode in ("L", "LA", "1") or image.mode.startswith("I") or (image.mode in ("P", "PA") and not by_colour):
        numbers = np.array(image)
        return (numbers[..., 0] if numbers.ndim == 3 else numbers), None
    return np.array(image.convert("RGB")), np.array(image) if image.mode == "P" else None


def _from_array(values: object, name: str) -> Array:
    """The class numbers (H, W) or the colours (H, W, 3) of an array or tensor."""
    tensor = isinstance(values, Tensor)
    if isinstance(values, Tensor):
        array: Array = values.detach().cpu().numpy()
    elif isinstance(values, np.ndarray):
        array = values
    else:
        raise InputError(f"{name} is of the type {type(values).__name__}; give {LABEL_MAP_KINDS}")
    if array.dtype.kind not in "iub":
        raise InputError(f"{name} is of {array.dtype}; give integers")
    if tensor and array.ndim == 3:
        array = np.moveaxis(array, 0, -1)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    colours = array.ndim == 3 and array.shape[2] == 3 and array.dtype == np.uint8
    if not (array.ndim == 2 or colours) or not array.size:
        allowed = "(3, H, W)" if tensor else "(H, W, 3)"
        shape = f"{array.dtype} of shape {tuple(values.shape)}"
        raise InputError(f"{name} is {shape}; give integers (H, W), or uint8 colours {allowed} with a palette")
    return array


def _classes_of_colours(
    pixels: Array,
    colours: Mapping[int, Colour] | None,
    name: str,
    indices: Array | None,
    ignore_index: int | None,
) -> Array:
    """The class numbers (H, W) of colours (H, W, 3); of an indexed image, `indices` are its indices (H, W)."""
    if colours is None:
        raise InputError(f"{name} has colours; give a palette of the classes, or an indexed or grey image")
    weights = np.array([1 << 16, 1 << 8, 1])
    known = sorted((int(np.dot(colour, weights)), number) for number, colour in colours.items())
    keys, classes = np.array(known).T
    packed = pixels @ weights
    places = np.searchsorted(keys, packed).clip(max=len(keys) - 1)
    unknown = keys[places] != packed
    found: Array = classes[places]
    if indices is not None and ignore_index is not None:
        found = np.where(unknown & (indices == ignore_index), ignore_index, found)
        unknown &= indices != ignore_index
    if unknown.any():
        value, where = _first(packed, unknown)
        colour = np.array([value >> 16, value >> 8 & 255, value & 255])
        near = min(colours, key=lambda number: int(((np.array(colours[number]) - colour) ** 2).sum()))
        given = f"{name} has the colour {tuple(colour.tolist())} {where}, which is of no class"
        raise InputError(f"{given}; the nearest of the {len(colours)} allowed is {colours[near]}, class {near}")
    return found


def _classes_of_greys(pixels: Array, colours: Mapping[int, Colour], num_classes: int, name: str) -> Array:
    """The class numbers of a grey image (H, W) that is read by its colours; the image itself if it has numbers."""
    greys = {colour[0]: number for number, colour in colours.items() if len(set(colour)) == 1}
    shades = pixels.astype(np.uint8) * 255 if pixels.dtype == bool else pixels
    values = np.unique(shades).tolist()
    if len(greys) < len(colours) or not set(values) <= set(greys):
        return pixels
    table = np.zeros(256, np.int64)
    table[list(greys)] = list(greys.values())
    found: Array = table[shades]
    if pixels.dtype != bool and values[-1] < num_classes and (found != pixels).any():
        raise InputError(
            f"{name} is grey with the values {values}, which are numbers of classes and shades of other classes in the "
            "palette; save it as an indexed or RGB image"
        )
    return found


def _first(pixels: Array, bad: Array) -> tuple[int, str]:
    """The value of the first bad pixel, and a text that says where it is and how many more there are."""
    rows, columns = np.nonzero(bad)
    more = f" and {len(rows) - 1} more pixels" if len(rows) > 1 else ""
    return int(pixels[rows[0], columns[0]]), f"at x {columns[0]}, y {rows[0]}{more}"
