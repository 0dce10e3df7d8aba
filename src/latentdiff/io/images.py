"""Reading image files with limits, and the way from pixels to tensors."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import IO, TypeVar

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

from latentdiff.errors import BadFileError, LatentDiffError
from latentdiff.io.stored import Stored

T = TypeVar("T")

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"})
# No others: some of Pillow's formats start programs (EPS) or are hardly ever read.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "PPM", "JPEG2000")
MAX_PIXELS = 100_000_000
ORIENTATION, FIRST_TURNED = 0x0112, 5  # the EXIF tag, and the first of its values that swaps height and width


Source = str | Path | Stored | Image.Image


def load_image(source: Source, name: str | None = None) -> Image.Image:
    """An image as RGB with 8 bits, whatever the file has: see `as_rgb`.

    Args:
        source: A file, or an image that is open already.
        name: What an error calls it; the file's own name by default.

    Raises:
        BadFileError: If it can't be read as an image, has no pixels, or more than 100 megapixels.
    """
    return read_pixels(source, as_rgb, name)


def read_pixels(source: Source, convert: Callable[[Image.Image], T], name: str | None = None) -> T:
    """`convert` of an image that stands upright, in the file's own mode; of an animation, its first frame.

    Args:
        source: A file, or an image that is open already.
        convert: May raise what it likes; what isn't an error of ours becomes one.
        name: What an error calls the image; the file's own name by default.

    Raises:
        BadFileError: As `load_image`.
    """
    name = name or ("image" if isinstance(source, Image.Image) else str(source))
    with warnings.catch_warnings():  # Pillow warns of what is an error here, or does no harm
        warnings.simplefilter("ignore")
        try:
            if isinstance(source, Image.Image):
                return convert(_upright(source, name))
            with opened(source) as stream, Image.open(stream, formats=FORMATS) as file:
                return convert(_upright(file, name))
        except LatentDiffError:
            raise
        except UnidentifiedImageError:
            raise BadFileError(f"{name} is not an image of a known kind; known: {', '.join(FORMATS)}") from None
        except Image.DecompressionBombError:
            raise BadFileError(f"{name} has too many pixels; at most {MAX_PIXELS} are read") from None
        except Exception as error:  # a damaged file can raise anything inside Pillow's decoders
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise BadFileError(f"{name} cannot be read as an image ({reason}); replace it") from None


def opened(source: str | Stored) -> IO[bytes]:
    """A stream of a file's bytes."""
    return (Path(source) if isinstance(source, str) else source).open("rb")


def _upright(image: Image.Image, name: str) -> Image.Image:
    """The image, turned as its EXIF orientation says; it keeps the name of the file's format."""
    if not 0 < image.width * image.height <= MAX_PIXELS:
        raise BadFileError(f"{name} has {image.width}x{image.height} pixels; allowed: 1 to {MAX_PIXELS} in all")
    image.load()
    upright = ImageOps.exif_transpose(image)
    upright.format = image.format
    return upright


def as_rgb(image: Image.Image) -> Image.Image:
    """Any mode as RGB: transparency lies on white, 16-bit grey is scaled to 8 bits.

    Raises:
        ValueError: If numbers of 32 bits lie outside what is scaled: integers of 16 bits, floats in [0, 1].
    """
    if image.mode.startswith(("I", "F")):
        return _eight_bits(image).convert("RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    grey = np.asarray(image)
    most = 1 if image.mode == "F" else 65535
    if not (grey.min() >= 0 and grey.max() <= most):
        raise ValueError(f"its values reach from {grey.min()} to {grey.max()}, 0 to {most} can be scaled")
    scaled = np.round(grey * np.float32(255 / most)).astype(np.uint8)
    transparent = image.info.get("transparency")  # PNG: one grey value that stands for none
    return Image.fromarray(scaled if transparent is None else np.where(grey == transparent, np.uint8(255), scaled))


def upright_size(path: Stored) -> tuple[int, int]:
    """Height and width of an image file as it is read, by its header alone.

    Raises:
        BadFileError: If it is no image.
    """
    try:
        with path.open("rb") as stream, Image.open(stream, formats=FORMATS) as file:
            turned = file.getexif().get(ORIENTATION, 1) >= FIRST_TURNED
            return file.size if turned else (file.height, file.width)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise BadFileError(f"{path} cannot be read as an image ({error}); replace it") from None


def centre_box(height: int, width: int) -> tuple[int, int, int, int]:
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
    """An image (C, H, W) in [-1, 1] to look at: one channel is grey, of more than three the first are RGB."""
    channels = image[:3] if len(image) >= 3 else image[:1].expand(3, -1, -1)
    pixels = channels.add(1).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8)
    return Image.fromarray(pixels.permute(1, 2, 0).cpu().numpy())
