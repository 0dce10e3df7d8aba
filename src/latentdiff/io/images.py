"""Reading image files with limits, and converting between pixels and tensors."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeVar

import numpy as np
import torch
from PIL import Image, ImageOps, TiffImagePlugin, UnidentifiedImageError

from latentdiff.errors import BadFileError, LatentDiffError
from latentdiff.io.file_kinds import HEAD_BYTES, other_file
from latentdiff.io.png import may_be_turned, without_texts
from latentdiff.io.stored import MAX_FILE_BYTES, Stored, open_stored
from latentdiff.types import Array

Converted = TypeVar("Converted")

# Pillow has more, but some of those start programs (EPS), and others are hardly ever needed.
IMAGE_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "PPM", "JPEG2000")
MAX_PIXELS = 100_000_000
ORIENTATION, TURNED = 0x0112, (5, 6, 7, 8)  # the EXIF tag, and its values that swap height and width
PHOTOMETRIC = 262  # the TIFF tag that is 0 where the smallest value is white
BITS_PER_SAMPLE, SAMPLE_FORMAT, TILE_WIDTH, TILE_LENGTH = 258, 339, 322, 323  # more tags of TIFFs
UNSIGNED, SIGNED = 1, 2  # sample formats
# What `read_pixels` says in the `info` of a TIFF: whether its smallest value is white, the largest value of fewer bits
# than Pillow's mode has, and whether the values are signed integers of 16 bits. Of a JPEG: height and width, if it was
# decoded smaller.
WHITE_IS_ZERO, LARGEST_VALUE, SIXTEEN_SIGNED = "white_is_zero", "largest_value", "sixteen_signed"
FULL_SIZE = "full_size"

ImageSource = str | Path | Stored | Image.Image
Box = tuple[int, int, int, int]
"""Left, top, right and bottom in pixels."""
Reduce = Callable[[int, int], int]
"""Height and width to how many times smaller an image may be decoded."""


def load_image(source: ImageSource, name: str | None = None, reduce: Reduce | None = None) -> Image.Image:
    """Read an image of any mode as RGB with 8 bits; see `as_rgb`.

    Args:
        source: A file, or an image that is open already.
        name: The name of the image in errors; by default that of the file.
        reduce: How many times smaller it may be decoded; see `read_pixels`.

    Raises:
        BadFileError: If it can't be read as an image, has no pixels, or more than 100 megapixels.
    """
    return read_pixels(source, as_rgb, name, reduce)


def read_pixels(
    source: ImageSource,
    convert: Callable[[Image.Image], Converted],
    name: str | None = None,
    reduce: Reduce | None = None,
) -> Converted:
    """Read an image and convert it with a function.

    Args:
        source: A file, or an image that is open already. Of an animation, the first frame is read.
        convert: The function. It gets the image in the file's own mode, turned upright. What it raises becomes a
            BadFileError unless it is an error of this package.
        name: The name of the image in errors; by default that of the file.
        reduce: How many times smaller a file may be decoded, of height and width. JPEG alone can: by half, a quarter or
            an eighth, in a part of the time and the memory.

    Returns:
        The result of `convert`.

    Raises:
        BadFileError: If it can't be read as an image, has no pixels, or more than 100 megapixels.
    """
    name = name or ("image" if isinstance(source, Image.Image) else str(source))
    with _errors_named(name):
        if isinstance(source, Image.Image):
            return convert(_upright(source, name))
        with open_stored(source) as stream:
            return _opened(stream, lambda image: convert(_upright(image, name, reduce)))


class _OtherKind(UnidentifiedImageError):
    """A file is of a known kind that is not read as an image; the text says which, and what to do."""


@contextlib.contextmanager
def _errors_named(name: str, unknown: str = "is not an image of a known kind") -> Iterator[None]:
    """Turn whatever goes wrong with an image into a BadFileError of its name."""
    with warnings.catch_warnings():  # what Pillow warns of is either an error here or harmless
        warnings.simplefilter("ignore")
        try:
            yield
        except LatentDiffError:
            raise
        except UnidentifiedImageError as error:
            what = f"; it is {error}" if isinstance(error, _OtherKind) else ""
            raise BadFileError(f"{name} {unknown}; known: {', '.join(IMAGE_FORMATS)}{what}") from None
        except Image.DecompressionBombError:
            raise BadFileError(f"{name} has too many pixels; at most {MAX_PIXELS} are read") from None
        except Exception as error:  # Pillow's decoders may raise anything for a damaged file
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise BadFileError(f"{name} cannot be read as an image ({reason}); replace it") from None


def _opened(stream: IO[bytes], use: Callable[[Image.Image], Converted]) -> Converted:
    """The result of a function of the image in a file, whose pixels are not decoded before it asks for them."""
    try:
        with Image.open(stream, formats=IMAGE_FORMATS) as image:
            return use(image)
    except LatentDiffError:
        raise
    except UnidentifiedImageError:
        stream.seek(0)
        what = other_file(stream.read(HEAD_BYTES))
        if what is None or what.upper().endswith(tuple(f"{kind} IMAGE" for kind in IMAGE_FORMATS)):  # a damaged one
            raise
        raise _OtherKind(what) from None
    except ValueError:  # of a text or colour profile that is too long for Pillow, though the picture is sound
        picture = without_texts(stream)
        if picture is None:
            raise
        return _opened(picture, use)


def _upright(image: Image.Image, name: str, reduce: Reduce | None = None) -> Image.Image:
    """The image turned as its EXIF orientation says; it keeps the name of the file's format."""
    check_pixels(image.height, image.width, name)
    numbers: dict[str, object] = {}
    if reduce is not None and image.format == "JPEG":
        orientation = image.getexif().get(ORIENTATION, 1)
        size = image.size if orientation in TURNED else image.size[::-1]
        factor = next(factor for factor in (8, 4, 2, 1) if factor <= max(1, reduce(*size)))
        while orientation != 1 and (image.width % factor or image.height % factor):
            factor //= 2  # else the pixel that is cut off at the end would come to lie at the start
        if factor > 1:
            image.draft(image.mode, (image.width // factor, image.height // factor))
            numbers[FULL_SIZE] = size
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        tags = image.tag_v2
        check_pixels(tags.get(TILE_LENGTH, 1), tags.get(TILE_WIDTH, 1), name)
        bits, signed = max(tags.get(BITS_PER_SAMPLE, (1,))), tags.get(SAMPLE_FORMAT, (UNSIGNED,))[0] == SIGNED
        numbers = {WHITE_IS_ZERO: tags.get(PHOTOMETRIC) == 0, SIXTEEN_SIGNED: signed and bits == 16}
        if bits < 16:
            numbers[LARGEST_VALUE] = 2**bits - 1
    image.load()
    upright = ImageOps.exif_transpose(image)
    upright.format = image.format
    upright.info.update(numbers)
    return upright


def check_pixels(height: int, width: int, name: str) -> None:
    """Raise BadFileError if an image has no pixels, or more than are read."""
    if not 0 < width * height <= MAX_PIXELS:
        raise BadFileError(f"{name} has {width}x{height} pixels; allowed: 1 to {MAX_PIXELS} in all")


def checked_shape(shape: tuple[int, ...], dtype: np.dtype[Any], source: Stored) -> tuple[int, int, int]:
    """The shape (H, W) or (H, W, C) as (H, W, C); BadFileError if it is that of no image, or too large."""
    if len(shape) not in (2, 3) or dtype.kind not in "uif" or not math.prod(shape):
        raise BadFileError(f"{source} has {dtype} of shape {shape}; numbers of shape (H, W) or (H, W, C) are read")
    height, width, channels = shape if len(shape) == 3 else (*shape, 1)
    check_pixels(height, width, str(source))
    if height * width * channels * dtype.itemsize > MAX_FILE_BYTES:
        raise BadFileError(
            f"{source} has {channels} channels of {width}x{height} pixels; allowed: {MAX_FILE_BYTES} bytes"
        )
    return height, width, channels


class Values(NamedTuple):
    """The values of an image as its file has them.

    Attributes:
        pixels: The numbers (H, W, C).
        negative: The number of channels, from the first, in which the smallest value is white.
        most: The largest value, if it is not that of the numbers' type: 4095 of 12 bits in 16.
    """

    pixels: Array
    negative: int = 0
    most: int | None = None


def is_negative(image: Image.Image) -> bool:
    """Whether small values are bright in an image of `read_pixels`; Pillow turns those of 8 bits and fewer around."""
    return bool(image.info.get(WHITE_IS_ZERO)) and image.mode.startswith(("I", "F"))


def as_rgb(image: Image.Image) -> Image.Image:
    """An image of any mode as RGB: transparency lies on white, 16-bit grey is scaled to 8 bits.

    Raises:
        ValueError: If integers of 32 bits lie outside 0 to 65535, or floats outside [0, 1], or integers of 16 bits are
            signed.
    """
    if image.mode.startswith(("I", "F")):
        return _eight_bits(image).convert("RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """Grey of 16 bits or floats as grey of 8 bits."""
    grey = np.asarray(image)
    most = 1 if image.mode == "F" else image.info.get(LARGEST_VALUE, 65535)
    if image.info.get(SIXTEEN_SIGNED):
        raise ValueError("its values are signed integers, of which no range is known")
    if not (grey.min() >= 0 and grey.max() <= most):
        raise ValueError(f"its values reach from {grey.min()} to {grey.max()}, 0 to {most} can be scaled")
    bright = most - grey if is_negative(image) else grey
    scaled = np.round(bright * np.float32(255 / most)).astype(np.uint8)
    transparent = image.info.get("transparency")  # in a PNG, one grey value may stand for full transparency
    return Image.fromarray(scaled if transparent is None else np.where(grey == transparent, np.uint8(255), scaled))


def upright_size(path: Stored) -> tuple[int, int]:
    """Height and width of an image file after its EXIF orientation, by its header alone.

    Raises:
        BadFileError: If it can't be read as an image.
    """
    unknown = "cannot be read as an image, since it is of no known kind"
    with _errors_named(str(path), unknown), open_stored(path) as stream:
        # Pillow has turned the size of a TIFF already, and would decode the pixels of a PNG to see whether to turn it.
        upright = {"TIFF"} if may_be_turned(stream) else {"TIFF", "PNG"}

        def size(image: Image.Image) -> tuple[int, int]:
            check_pixels(image.height, image.width, str(path))
            turned = image.format not in upright and image.getexif().get(ORIENTATION) in TURNED
            return image.size if turned else (image.height, image.width)

        stream.seek(0)
        return _opened(stream, size)


def centre_box(height: int, width: int) -> Box:
    """Left, top, right and bottom, in pixels, of the centre square of an image."""
    side = min(height, width)
    left, top = (width - side) // 2, (height - side) // 2
    return left, top, left + side, top + side


def centre_square(image: Image.Image, resolution: int) -> Image.Image:
    """The centre square of an image, resized to `resolution` pixels a side."""
    if image.size == (resolution, resolution):
        return image
    box = centre_box(image.height, image.width)
    return image.resize((resolution, resolution), Image.Resampling.LANCZOS, box=box)


def to_tensor(image: Image.Image) -> torch.Tensor:
    """An RGB image as (3, H, W) in [-1, 1]."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float().div_(127.5).sub_(1)


def to_picture(image: torch.Tensor) -> Image.Image:
    """An image (C, H, W) in [-1, 1] as RGB with 8 bits; one channel is grey, of more than three the first are RGB."""
    channels = image[:3] if len(image) >= 3 else image[:1].expand(3, -1, -1)
    pixels = channels.add(1).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8)
    return Image.fromarray(pixels.permute(1, 2, 0).cpu().numpy())
