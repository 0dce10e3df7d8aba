"""Reading TIFFs that Pillow can't read or would drop channels of, through tifffile."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import IO, Any

import numpy as np
from PIL import Image, TiffImagePlugin, UnidentifiedImageError

from latentdiff.errors import BadFileError, ConfigError, LatentDiffError, one_line
from latentdiff.io.images import (
    BITS_PER_SAMPLE,
    ORIENTATION,
    PHOTOMETRIC,
    SAMPLE_FORMAT,
    TURNED,
    UNSIGNED,
    Box,
    Values,
    check_pixels,
    checked_shape,
)
from latentdiff.io.stored import Stored, open_stored
from latentdiff.types import Array

TIFF_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # the last two are BigTIFF's
SAMPLES_PER_PIXEL = 277  # a tag
SEPARATE_PLANES, RGB = 2, 2  # a planar configuration, and a photometric interpretation
CHANNELS_LAST, CHANNELS_FIRST = ("YX", "YXS", "YXC"), ("SYX", "CYX")  # tifffile's names of axes


def _transposed(values: Array) -> Array:
    return values.swapaxes(0, 1)


TURNS: dict[int, tuple[Callable[[Array], Array], ...]] = {  # what turns an image of each orientation upright
    1: (),
    2: (np.fliplr,),
    3: (np.flipud, np.fliplr),
    4: (np.flipud,),
    5: (_transposed,),
    6: (_transposed, np.fliplr),
    7: (_transposed, np.fliplr, np.flipud),
    8: (_transposed, np.flipud),
}


def is_beyond_pillow(stream: IO[bytes], header: bytes) -> bool:
    """Whether Pillow fails at a TIFF or drops channels: if it has two, more than four, or several deep ones."""
    try:
        # The header of a BigTIFF, whose version is 43, is 16 bytes long instead of 8.
        tags = TiffImagePlugin.ImageFileDirectory_v2(header + (stream.read(8) if 43 in header[2:4] else b""))
        stream.seek(tags.next)
        tags.load(stream)
        bits, samples = tags.get(BITS_PER_SAMPLE, (1,)), tags.get(SAMPLES_PER_PIXEL, 1)
        if samples > 4 or samples == 2 or (samples > 1 and max(bits) > 8):
            return True
        if max(bits) == 32 and tags.get(SAMPLE_FORMAT, (UNSIGNED,))[0] == UNSIGNED:  # Pillow makes them signed
            return True
        stream.seek(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            Image.open(stream, formats=["TIFF"])
    except UnidentifiedImageError:  # a kind of numbers that Pillow does not know
        return True
    except Exception:  # the file is damaged, which Pillow's own error describes
        return False
    return False


def read_tiff(source: Stored, area: Box | None = None) -> Values:
    """The values of a TIFF's first picture, turned upright, or of an area of it.

    Of a picture on one page that isn't turned, the tiles or strips of the area alone are read.

    Raises:
        BadFileError: If it is damaged, no image, or too large.
        ConfigError: If tifffile is not installed.
    """
    with _opened(source) as (shape, page, picture):
        orientation = _orientation(page)
        if area is not None and orientation == 1 and len(getattr(picture, "pages", (page,))) == 1:
            values = _read_area(page, area)
        else:
            values = picture.asarray()
            if picture.axes in CHANNELS_FIRST:
                values = np.moveaxis(values, 0, -1)
            values = values.reshape(shape)
            for turn in TURNS[orientation]:
                values = turn(values)
            if area is not None:
                values = values[area[1] : area[3], area[0] : area[2]]
        negative = page.tags.valueof(PHOTOMETRIC) == 0
        bits = page.bitspersample
        return Values(
            values,
            negative=max(1, shape[2] - len(page.extrasamples)) if negative else 0,
            most=2**bits - 1 if values.dtype.kind == "u" and bits < 8 * values.dtype.itemsize else None,
        )


def read_rgb_area(source: Stored, area: Box) -> Array | None:
    """An area (h, w, 3) of an upright RGB picture of 8 bits, of which no other tiles or strips are read.

    Returns:
        The pixels; None where the picture is of another kind or tifffile isn't there to read it, but Pillow may.
    """
    with contextlib.suppress(LatentDiffError), _opened(source) as (shape, page, picture):
        plain = page.photometric == RGB and shape[2] == 3 and page.dtype == np.uint8 and page.bitspersample == 8
        if plain and _orientation(page) == 1 and len(getattr(picture, "pages", (page,))) == 1:
            return _read_area(page, area)
    return None


def _read_area(page: Any, area: Box) -> Array:
    """An area (h, w, C) of a page, of which no other tiles or strips are read."""
    left, top, right, bottom = area
    planes = page.samplesperpixel if page.planarconfig == SEPARATE_PLANES else 1
    width, height = (page.tilewidth, page.tilelength) if page.is_tiled else (page.imagewidth, page.rowsperstrip)
    height = min(height, page.imagelength)
    across, down = -(-page.imagewidth // width), -(-page.imagelength // height)
    found = np.full((bottom - top, right - left, page.samplesperpixel), page.nodata, page.dtype)
    for plane in range(planes):
        channels = slice(plane, plane + 1) if planes > 1 else slice(None)
        for row in range(top // height, -(-bottom // height)):
            for column in range(left // width, -(-right // width)):
                number = (plane * down + row) * across + column
                page.parent.filehandle.seek(page.dataoffsets[number])
                stored = page.parent.filehandle.read(page.databytecounts[number])
                tile = page.decode(stored, number, jpegtables=page.jpegtables)[0]
                if tile is None:  # a sparse file leaves out tiles of no data
                    continue
                tile = tile.reshape(-1, *tile.shape[-2:])
                y, x = row * height, column * width
                rows = slice(max(y, top), min(y + tile.shape[0], bottom))
                columns = slice(max(x, left), min(x + tile.shape[1], right))
                part = tile[rows.start - y : rows.stop - y, columns.start - x : columns.stop - x]
                found[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left, channels] = part
    return found


def tiff_shape(source: Stored) -> tuple[int, int, int]:
    """Height, width and channels of what `read_tiff` gives, by the header alone; raises as that."""
    with _opened(source) as ((height, width, channels), page, _):
        return (width, height, channels) if _orientation(page) in TURNED else (height, width, channels)


def tiff_orientation(source: Stored) -> int:
    """The orientation that the header says, 1 to 8, as EXIF counts them; raises as `read_tiff`."""
    with _opened(source) as (_, page, _):
        return _orientation(page)


@contextlib.contextmanager
def _opened(source: Stored) -> Iterator[tuple[tuple[int, int, int], Any, Any]]:
    """The shape (H, W, C) as it is stored, the first page, and what to read; no pixel has been decoded."""
    tifffile = tifffile_for(source)
    try:
        with open_stored(source) as stream, tifffile.TiffFile(stream) as file:
            # A series has the channels that stand on pages of their own; of other pages, the first is the picture.
            page, picture = file.pages[0], file.series[0]
            if picture.axes not in CHANNELS_LAST + CHANNELS_FIRST:
                picture = page
            if picture.axes not in CHANNELS_LAST + CHANNELS_FIRST:
                raise BadFileError(f"{source} is no image but an array of the axes {picture.axes}; replace it")
            if page.is_tiled:
                check_pixels(page.tilelength, page.tilewidth, str(source))
            shape = picture.shape
            if picture.axes in CHANNELS_FIRST:
                shape = (*shape[1:], shape[0])
            yield checked_shape(shape, picture.dtype, source), page, picture
    except LatentDiffError:
        raise
    except Exception as error:  # a decoder may raise anything for a damaged file
        raise BadFileError(f"{source} cannot be read as an image ({one_line(error)}); replace it") from None


def _orientation(page: Any) -> int:
    """The orientation of a page, 1 where it is none of the eight."""
    value = page.tags.valueof(ORIENTATION)
    return value if value in TURNS else 1


def tifffile_for(path: object) -> ModuleType:
    """The module tifffile; ConfigError, which names the file, if it is not installed."""
    try:
        import tifffile
    except ImportError:
        raise ConfigError(
            f"{path} is a TIFF of many channels or several deep ones; install latentdiff[tiff] for it"
        ) from None
    module: ModuleType = tifffile
    return module
