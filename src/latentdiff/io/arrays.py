"""Reading and writing images of any number of channels and any depth: `.npy`, TIFF, and whatever Pillow reads.

Values are scaled to [-1, 1]. By default unsigned integers go from 0 to the largest number of their type (255 of 8 bits,
65535 of 16) and floats from 0 to 1. `value_range` gives another range, and what lies outside is clipped to it. In TIFFs
whose smallest value is white, the ends of the range change places.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from PIL import Image

from latentdiff.errors import BadFileError, InputError
from latentdiff.io.files import atomic_file
from latentdiff.io.images import (
    LARGEST_VALUE,
    SIXTEEN_SIGNED,
    Box,
    ImageSource,
    Values,
    as_rgb,
    is_negative,
    read_pixels,
    upright_size,
)
from latentdiff.io.npy import NPY_SIGNATURE, npy_shape, read_npy
from latentdiff.io.stored import Stored, open_stored
from latentdiff.io.tiff import TIFF_SIGNATURES, is_beyond_pillow, read_tiff, tiff_shape, tifffile_for
from latentdiff.types import Array, Float32Array

LANCZOS_LOBES = 3  # how far the filter reaches, in pixels of the smaller image
SIXTEEN_BITS = 65535  # integers of more bits with no larger value may have any range
DEEP_MODES = ("I;16", "I;16B", "I;16L", "I", "F")  # Pillow's modes of one channel with more than 8 bits


def read_values(
    source: Stored, channels: int, value_range: tuple[float, float] | None = None, area: Box | None = None
) -> Float32Array:
    """Read an image as float32 (H, W, C) in [-1, 1]; the module's docstring says how values are scaled.

    Args:
        source: The file.
        channels: The number of channels C. 3 is RGB, where transparency lies on white, and 1 is grey; the file must
            have any other number itself.
        value_range: The values that become -1 and 1; by default those of the values' type.
        area: The area (left, top, right, bottom) in pixels to read; all by default. No more is read of `.npy` files and
            of TIFFs that Pillow can't read than their rows, tiles or strips that are in it.

    Raises:
        BadFileError: If the file can't be decoded, has another number of channels, or values of no known range.
    """
    kind = kind_of(source)
    if kind == "pillow":
        whole = values_of(source, channels, str(source), value_range)
        return whole if area is None else whole[area[1] : area[3], area[0] : area[2]]
    if kind == "npy":
        return _scaled(Values(read_npy(source, area)), channels, value_range, str(source))
    values = read_tiff(source, area)
    if channels == 3 and values.pixels.shape[2] == 1:
        values = values._replace(pixels=values.pixels.repeat(3, axis=2), negative=3 * values.negative)
    return _scaled(values, channels, value_range, str(source))


def values_of(
    image: ImageSource, channels: int, name: str, value_range: tuple[float, float] | None = None
) -> Float32Array:
    """Read an image that Pillow can read or has read, as `read_values` does; `name` is what errors call it."""
    values = read_pixels(image, lambda upright: _from_pillow(upright, channels), name)
    return _scaled(values, channels, value_range, name)


def count_channels(source: Stored) -> int:
    """The number of channels to read an image with where nobody says it.

    It is that of the file for arrays and TIFFs that Pillow can't read, 1 for grey of more than 8 bits, and else 3, RGB.

    Raises:
        BadFileError: If the file can't be decoded.
    """
    kind = kind_of(source)
    if kind == "pillow":
        return read_pixels(source, lambda image: 1 if image.mode in DEEP_MODES else 3, str(source))
    return (npy_shape(source) if kind == "npy" else tiff_shape(source))[2]


def size_of(source: Stored) -> tuple[int, int]:
    """Height and width of an image that `read_values` can read.

    Raises:
        BadFileError: If the file can't be decoded.
    """
    kind = kind_of(source)
    if kind == "pillow":
        return upright_size(source)
    height, width, _ = npy_shape(source) if kind == "npy" else tiff_shape(source)
    return height, width


def resize_part(values: Array, box: Box, size: tuple[int, int]) -> Float32Array:
    """A part of an image (H, W, C) in [-1, 1], resized by Lanczos' filter.

    Args:
        values: The image.
        box: The part.
        size: Height and width of the result.
    """
    left, top, right, bottom = box
    height, width = size
    if (bottom - top, right - left) == size:
        return values[top:bottom, left:right]
    planes = [Image.fromarray(np.ascontiguousarray(values[..., c])) for c in range(values.shape[2])]
    resized = [np.asarray(plane.resize((width, height), Image.Resampling.LANCZOS, box=box)) for plane in planes]
    return np.stack(resized, axis=-1).clip(-1, 1)


def filter_area(box: Box, size: tuple[int, int], height: int, width: int) -> Box:
    """What Lanczos' filter reads of an image when it resizes a part of it: the part with a margin, within the image.

    Args:
        box: The part.
        size: Height and width of the result.
        height: That of the image.
        width: Likewise.
    """
    left, top, right, bottom = box
    y, x = (
        0 if old == new else math.ceil(LANCZOS_LOBES * max(1.0, old / new)) + 1
        for old, new in zip((bottom - top, right - left), size, strict=True)
    )
    return max(0, left - x), max(0, top - y), min(width, right + x), min(height, bottom + y)


def kind_of(source: Stored) -> str:
    """How a file is to be read, by its first bytes and not by its name.

    Returns:
        "npy", "tiff" for a TIFF that Pillow can't read, or "pillow" for anything else.

    Raises:
        BadFileError: If the file can't be read.
    """
    try:
        with open_stored(source) as stream:
            start = stream.read(8)
            if start.startswith(NPY_SIGNATURE):
                return "npy"
            return "tiff" if start[:4] in TIFF_SIGNATURES and is_beyond_pillow(stream, start) else "pillow"
    except OSError as error:
        raise BadFileError(f"{source} cannot be read as an image ({error.strerror}); replace it") from None


def _from_pillow(image: Image.Image, channels: int) -> Values:
    """The values of Pillow's image: those of the file, or 8 bits of RGB or grey where these are wanted of another."""
    negative, most = 0, None
    if channels == 3:
        pixels = np.asarray(as_rgb(image))
    elif channels == 1 and (image.mode in DEEP_MODES or image.mode == "1"):
        pixels = np.asarray(image.convert("L") if image.mode == "1" else image)
        negative, most = int(is_negative(image)), image.info.get(LARGEST_VALUE) if image.mode in DEEP_MODES else None
        sixteen = image.mode == "I" and not image.info.get(SIXTEEN_SIGNED)  # Pillow may keep 16 bits in 32
        if sixteen and pixels.min() >= 0 and pixels.max() <= SIXTEEN_BITS:
            pixels = pixels.astype(np.uint16)
    elif channels == 1:
        pixels = np.asarray(as_rgb(image).convert("L"))
    else:
        pixels = np.asarray(image)
    return Values(pixels if pixels.ndim == 3 else pixels[..., None], negative, most)


def _scaled(values: Values, channels: int, value_range: tuple[float, float] | None, name: str) -> Float32Array:
    """An image as float32 (H, W, C) in [-1, 1]; see `read_values` for the arguments.

    Raises:
        BadFileError: If C is not `channels`, or values are not finite or have no known range.
    """
    pixels, kind = values.pixels, values.pixels.dtype
    if pixels.shape[2] != channels:
        raise BadFileError(f"{name} has {pixels.shape[2]} channels where {channels} are needed; replace it")
    with np.errstate(over="ignore"):  # what float32 can't hold is infinite, which is said below
        floats = pixels.astype(np.float32)
    largest = values.most or (np.iinfo(kind).max if kind.kind == "u" else 1)
    low, high = value_range or (0.0, float(largest))
    least, most = float(floats.min()), float(floats.max())
    if not (np.isfinite(least) and np.isfinite(most)):
        raise BadFileError(f"{name} has values that are infinite or not numbers; replace it")
    open_range = kind.kind == "i" or (kind.kind == "u" and kind.itemsize > 2 and 0 < most <= SIXTEEN_BITS)
    if value_range is None and (open_range or least < low or most > np.float32(high)):
        raise BadFileError(
            f"{name} has {kind} from {least:g} to {most:g}; give value_range, the values that become -1 and 1"
        )
    scaled: Float32Array = ((floats - np.float32(low)) / np.float32((high - low) / 2) - 1).clip(-1, 1)
    scaled[..., : values.negative] *= -1
    return scaled


def write_values(path: str | Path, values: Array) -> None:
    """Write an image (H, W, C) of floats in [0, 1], as pipelines return with `output_type="np"`, at full depth.

    Args:
        path: The file. `.npy` keeps the floats, `.png` has one channel of 16 bits, `.tif` any number of them.
        values: The image.

    Raises:
        InputError: If the suffix is none of these, the values are not such an image, or a PNG would need several
            channels.
        ConfigError: If the extra `tiff` is needed and missing.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in (".npy", ".png", ".tif", ".tiff") or (suffix == ".png" and values.shape[2:] != (1,)):
        raise InputError(
            f"{path} can't hold an image of shape {values.shape}; give .npy, .tif, or .png for one channel"
        )
    if values.ndim != 3 or values.dtype.kind != "f" or not (values.min() >= 0 and values.max() <= 1):
        raise InputError(f"values are {values.dtype} of shape {values.shape}; give floats (H, W, C) in [0, 1]")
    deep = np.round(values.astype(np.float64) * 65535).astype(np.uint16)
    with atomic_file(path) as aside:
        if suffix == ".npy":
            np.save(aside, values.astype(np.float32))
        elif suffix == ".png":
            Image.fromarray(deep[..., 0]).save(aside)
        else:
            kind = "rgb" if deep.shape[2] == 3 else "minisblack"
            layout = {"planarconfig": "contig"} if deep.shape[2] > 1 else {}
            tifffile_for(path).imwrite(aside, deep if layout else deep[..., 0], photometric=kind, **layout)
