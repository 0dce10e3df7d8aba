"""The image that boxes are of: annotations say its width and height, the file may have others, or be turned by EXIF."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from PIL import Image

from latentdiff.data.records import Size
from latentdiff.errors import InputError
from latentdiff.io.arrays import kind_of, size_of
from latentdiff.io.boxes import Corners, turn
from latentdiff.io.images import IMAGE_FORMATS, ORIENTATION
from latentdiff.io.stored import Stored, open_stored
from latentdiff.io.tiff import tiff_orientation

ADVICE = "save the image upright, without an EXIF orientation, and annotate that"


@dataclass(frozen=True)
class Frame:
    """The image that boxes are of, in relation to a file.

    Attributes:
        size: Height and width in pixels that boxes in pixels are of.
        file_size: Height and width of the file's image, upright.
        orientation: How boxes have to be turned, as EXIF says it of images; 1 for not at all.
    """

    size: tuple[int, int]
    file_size: tuple[int, int]
    orientation: int = 1

    def upright(self, box: Corners) -> Corners:
        """A relative box in the upright image of the file."""
        return turn(box, self.orientation)


def frame_of(file: Stored, name: str, said: Size | None, boxed: bool) -> Frame:
    """The image that the boxes of a file are of.

    That is the file's own, upright, or one of the same shape in another size, in which it was annotated. An image that
    EXIF turns may have been annotated as it is stored, which the annotated size tells where it isn't that of both.

    Args:
        file: The image.
        name: Its name in errors.
        said: Width and height that the annotations say; None if they don't.
        boxed: Whether there are boxes, so that it matters.

    Raises:
        BadFileError: If the image can't be decoded.
        InputError: If the annotations are of another image, or it can't be told how it was turned.
    """
    height, width = size = size_of(file)
    if not boxed:
        return Frame(size, size)
    orientation = orientation_of(file)
    upright = said is None or _alike(said, (width, height))
    stored = orientation > 4 and said is not None and _alike(said, (height, width))
    if orientation > 1 and (said is None or orientation <= 4 or upright == stored):
        raise InputError(
            f"{name} is turned by its EXIF orientation {orientation}, and its annotations don't tell whether their "
            f"boxes are of the image before or after that; {ADVICE}"
        )
    if not (upright or stored):
        assert said is not None
        raise InputError(
            f"{name} is {width}x{height} pixels, but its boxes are of an image of {said[0]}x{said[1]}; "
            "give the file that was annotated, or one of the same shape"
        )
    annotated = size if said is None else (said[1], said[0])
    return Frame(annotated, size, 1 if upright else orientation)


def _alike(one: Size, other: Size) -> bool:
    """Whether two sizes are of one shape, up to a pixel that was rounded off when the image was resized."""
    return abs(one[0] * other[1] - one[1] * other[0]) <= min(max(one), max(other))


def orientation_of(file: Stored) -> int:
    """The EXIF orientation of an image, 1 to 8; 1, which is upright, if it has none."""
    with suppress(Exception):  # what is wrong with a file is said where it is decoded
        kind = kind_of(file)
        if kind == "tiff":
            return tiff_orientation(file)
        if kind == "pillow":
            with open_stored(file) as stream, Image.open(stream, formats=IMAGE_FORMATS) as image:
                orientation = image.getexif().get(ORIENTATION, 1)
                return orientation if orientation in range(1, 9) else 1
    return 1
