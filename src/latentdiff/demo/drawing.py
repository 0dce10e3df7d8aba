"""What is drawn on the page: photos that are uploaded, and masks, boxes and label maps as the files of a command."""

from __future__ import annotations

import base64
import io
import json
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from latentdiff.demo.controls import LABEL_MAP, LAYOUT, MASK, PHOTO
from latentdiff.demo.models import Model, PaintClass
from latentdiff.demo.shelf import Shelf
from latentdiff.demo.texts import say
from latentdiff.errors import InputError, LatentDiffError
from latentdiff.io.images import IMAGE_FORMATS, load_image
from latentdiff.types import Array
from latentdiff.viz.boxes import draw_boxes

MOST_BYTES = 40_000_000
MOST_PIXELS = 50_000_000  # of an upload
LONGEST_SIDE = 1024  # of what is drawn on, in pixels
LEAST_SIDE = 256  # of a picture with boxes, so that their labels can be read
WHITE = 255

Files = Mapping[str, bytes]
"""The files that a command reads, by their names."""

_DECODING = threading.BoundedSemaphore(1)  # a large picture takes hundreds of megabytes while it is decoded


@dataclass(frozen=True)
class Drawn:
    """What a request has besides its settings.

    Attributes:
        files: The files of the command.
        before: What to show beside the result, a PNG; None for nothing.
    """

    files: Files
    before: bytes | None = None


NOTHING = Drawn({})


def read_upload(path: Path, side: int) -> bytes:
    """An uploaded picture, made smaller until its sides have at most `side` pixels, as PNG.

    Its size is read before any of it is decoded.

    Raises:
        InputError: If it is too large, or none that can be read.
    """
    if path.stat().st_size > MOST_BYTES:
        raise InputError(say("error.upload.bytes", megabytes=MOST_BYTES // 10**6))
    side = max(1, min(side, LONGEST_SIDE))
    with _DECODING:
        pixels = _pixels_in_header(path)
        if pixels > MOST_PIXELS:
            values = {"megapixels": round(pixels / 10**6), "most": MOST_PIXELS // 10**6}
            raise InputError(say("error.upload.pixels", **values))
        try:
            picture = load_image(path, reduce=lambda height, width: max(1, max(height, width) // (2 * side)))
            picture.thumbnail((side, side), Image.Resampling.LANCZOS)
        except LatentDiffError:
            raise InputError(say("error.upload.kind")) from None
    return as_png(picture)


def _pixels_in_header(path: Path) -> int:
    """How many pixels an image has by its header, which is all that is read of it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            with Image.open(path, formats=IMAGE_FORMATS) as opened:
                return opened.width * opened.height
        except Image.DecompressionBombError:  # at least that many
            return 2 * (Image.MAX_IMAGE_PIXELS or 0)
        except Exception:  # whatever Pillow raises, it can't be read
            raise InputError(say("error.upload.kind")) from None


def as_png(picture: Image.Image) -> bytes:
    """A picture as the bytes of a PNG."""
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return stream.getvalue()


def read_drawing(drawing: object, model: Model, photos: Shelf[bytes]) -> Drawn:
    """What the canvas has sent, as files.

    Args:
        drawing: Its value: a mapping with what its kind needs of `photo`, `width`, `height`, `raster` and `objects`.
        model: The model that it is for.
        photos: Those that were uploaded.

    Raises:
        InputError: If nothing is drawn, or it is not what such a canvas sends.
    """
    canvas = model.controls.canvas
    if canvas is None:
        return NOTHING
    if not isinstance(drawing, Mapping) or drawing.get("kind") != canvas:
        raise InputError(say(f"error.draw.{canvas}"))
    return READERS[canvas](drawing, model.classes, photos)


def _read_image(drawing: Mapping[str, object], classes: Sequence[PaintClass], photos: Shelf[bytes]) -> Drawn:
    photo = _photo(drawing, photos, "image")
    return Drawn({PHOTO: photo}, photo)


def _read_mask(drawing: Mapping[str, object], classes: Sequence[PaintClass], photos: Shelf[bytes]) -> Drawn:
    photo = _photo(drawing, photos, "mask")
    raster = _raster(drawing, 2)
    with Image.open(io.BytesIO(photo)) as opened:
        if opened.size != raster.shape[::-1] or not raster.any():
            raise InputError(say("error.draw.mask"))
    return Drawn({PHOTO: photo, MASK: as_png(Image.fromarray(raster * np.uint8(WHITE)))}, photo)


def _read_boxes(drawing: Mapping[str, object], classes: Sequence[PaintClass], photos: Shelf[bytes]) -> Drawn:
    width, height = _size(drawing)
    given = drawing.get("objects")
    if not isinstance(given, list) or not given:
        raise InputError(say("error.draw.boxes"))
    objects: list[dict[str, object]] = []
    for item in given:
        number, box = (item.get("class"), item.get("box")) if isinstance(item, Mapping) else (None, None)
        if type(number) is not int or not 0 <= number < len(classes) or not _fits(box, width, height):
            raise InputError(say("error.draw.boxes"))
        objects.append({"class": classes[number].label, "box": box})
    layout = {"width": width, "height": height, "objects": objects}
    scale = max(1, -(-LEAST_SIDE // min(width, height)))
    blank = Image.new("RGB", (scale * width, scale * height), "white")
    before = draw_boxes(blank, objects, image_size=(height, width))
    return Drawn({LAYOUT: json.dumps(layout, indent=1).encode()}, as_png(before))


def _fits(box: object, width: int, height: int) -> bool:
    """Whether a box is left, top, width and height in whole pixels, inside of the picture."""
    if not isinstance(box, list) or len(box) != 4 or not all(type(value) is int for value in box):
        return False
    left, top, wide, high = (int(value) for value in box)
    return 0 <= left < left + wide <= width and 0 <= top < top + high <= height


def _read_labels(drawing: Mapping[str, object], classes: Sequence[PaintClass], photos: Shelf[bytes]) -> Drawn:
    """The label map as an indexed PNG: an index is the number of a class, and is shown in the class's colour."""
    picture = Image.fromarray(_raster(drawing, len(classes)))
    picture.putpalette([value for paint in classes for value in paint.colour])
    png = as_png(picture)
    return Drawn({LABEL_MAP: png}, png)


READERS: Mapping[str, Callable[[Mapping[str, object], Sequence[PaintClass], Shelf[bytes]], Drawn]] = {
    "image": _read_image,
    "mask": _read_mask,
    "boxes": _read_boxes,
    "labels": _read_labels,
}


def _photo(drawing: Mapping[str, object], photos: Shelf[bytes], canvas: str) -> bytes:
    token = drawing.get("photo")
    if not isinstance(token, str):
        raise InputError(say(f"error.draw.{canvas}"))
    photo = photos.get(token)
    if photo is None:
        raise InputError(say("error.photo"))
    return photo


def _size(drawing: Mapping[str, object]) -> tuple[int, int]:
    width, height = drawing.get("width"), drawing.get("height")
    for side in (width, height):
        if type(side) is not int or not 1 <= side <= LONGEST_SIDE:
            raise InputError(say("error.draw.labels"))
    assert isinstance(width, int)
    assert isinstance(height, int)
    return width, height


def _raster(drawing: Mapping[str, object], classes: int) -> Array:
    """The numbers of classes (H, W), uint8."""
    width, height = _size(drawing)
    try:
        numbers = np.frombuffer(base64.b64decode(str(drawing.get("raster")), validate=True), np.uint8)
    except ValueError:
        numbers = np.zeros(0, np.uint8)
    if numbers.size != width * height or int(numbers.max()) >= classes:
        raise InputError(say(f"error.draw.{drawing['kind']}"))
    return numbers.reshape(height, width)
