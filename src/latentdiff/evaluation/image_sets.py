"""Sets of images of one size that features are computed of: any source of training data, or ADM's `.npz` of samples."""

from __future__ import annotations

import hashlib
import math
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from latentdiff.config import from_mapping, recipe_values
from latentdiff.data.images import read_records
from latentdiff.data.options import DataOptions
from latentdiff.data.records import Records
from latentdiff.errors import BadFileError, ConfigError, InputError
from latentdiff.io.arrays import kind_of, read_values
from latentdiff.io.images import centre_square, load_image, to_picture
from latentdiff.io.stored import read_into_memory
from latentdiff.types import Array

LOCAL_HEADER = 30  # bytes of a zip member's local header before its name


class ImageSet(Protocol):
    """Images (H, W, 3) of uint8, all of one size."""

    @property
    def name(self) -> str:
        """What the set is called in messages."""
        ...

    @property
    def captions(self) -> list[str] | None:
        """A caption for each image; None if there are none."""
        ...

    def __len__(self) -> int:
        """The number of images."""
        ...

    def pixels(self, number: int) -> Array:
        """An image, uint8 (H, W, 3)."""
        ...

    def fingerprint(self) -> str:
        """A text that changes with the images and with the way in which they are read."""
        ...


class FileImages:
    """The images of records.

    Args:
        records: The records, from any source.
        resolution: The side of the squares that images are cropped and resized to, as in training; None takes images as
            they are, which must then be of one size.
        options: By which the records were read; None for files that no source of data brought.
    """

    def __init__(self, records: Records, resolution: int | None, options: DataOptions | None = None) -> None:
        self.records, self.resolution, self.options = records, resolution, options
        self.name = str(records.root)
        texts = records.columns.get("text")
        self.captions = [text[0] if isinstance(text, list) else text for text in texts] if texts else None
        self._size: tuple[int, ...] | None = None

    def __len__(self) -> int:
        return len(self.records.files)

    def pixels(self, number: int) -> Array:
        """An image, uint8 (H, W, 3).

        Raises:
            BadFileError: If it can't be decoded.
            InputError: If it is of another size than the first that was read.
        """
        file = read_into_memory(self.records.files[number])
        if kind_of(file) == "pillow":
            image = load_image(file, str(file))
        else:
            image = to_picture(torch.from_numpy(read_values(file, 3)).permute(2, 0, 1))
        if self.resolution is not None:
            image = centre_square(image, self.resolution)
        pixels = np.asarray(image)
        self._size = self._size or pixels.shape
        if pixels.shape != self._size:
            (height, width, _), (other, wide, _) = pixels.shape, self._size
            raise InputError(
                f"{file} is {width}x{height}, another image of {self.name} {wide}x{other}; give images of one size, "
                "or a resolution to crop and resize them to, as in training"
            )
        return pixels

    def fingerprint(self) -> str:
        """A text that changes with the files and the resolution."""
        return hashlib.sha256(f"{self.resolution} {self.records.fingerprint()}".encode()).hexdigest()


class ArrayImages:
    """The images of an array uint8 (N, H, W, 3), such as `arr_0` of ADM's files, which may be mapped from a file.

    Args:
        values: The array.
        path: The file.
        resolution: As in `FileImages`.
    """

    captions = None

    def __init__(self, values: Array, path: Path, resolution: int | None) -> None:
        if values.dtype != np.uint8 or values.ndim != 4 or values.shape[3] != 3 or not values.size:
            raise InputError(f"{path} has images {values.dtype} {values.shape}; they must be uint8 (N, H, W, 3)")
        if resolution is not None and values.shape[1:3] != (resolution, resolution):
            raise InputError(
                f"{path} has images of {values.shape[2]}x{values.shape[1]}, which are not resized; "
                f"give a file of {resolution}x{resolution}, or leave the resolution out"
            )
        self.values, self.path, self.name = values, path, str(path)

    def __len__(self) -> int:
        return len(self.values)

    def pixels(self, number: int) -> Array:
        """An image, uint8 (H, W, 3).

        It is read and not looked at in the map, whose pages would count as memory of this process.
        """
        if not isinstance(self.values, np.memmap) or not self.values.flags.c_contiguous:
            return np.array(self.values[number])
        shape = self.values.shape[1:]
        size = math.prod(shape)
        pixels = np.fromfile(self.path, np.uint8, size, offset=self.values.offset + number * size)
        if pixels.size != size:
            raise BadFileError(f"{self.path} has become shorter while it was read; fetch it again")
        return pixels.reshape(shape)

    def fingerprint(self) -> str:
        """A text that changes with the file."""
        stat = self.path.stat()
        return hashlib.sha256(f"{self.path.resolve()} {stat.st_size} {stat.st_mtime_ns}".encode()).hexdigest()


class ChosenImages:
    """Some images of a set, by their numbers."""

    def __init__(self, images: ImageSet, places: Sequence[int]) -> None:
        self.images, self.places, self.name = images, places, images.name
        self.captions = None if images.captions is None else [images.captions[place] for place in places]

    def __len__(self) -> int:
        return len(self.places)

    def pixels(self, number: int) -> Array:
        """An image, uint8 (H, W, 3)."""
        return self.images.pixels(self.places[number])

    def fingerprint(self) -> str:
        """A text that changes with the images, their choice and their order.

        The first images of a set have that of the whole set, beside which their count is kept.
        """
        whole = self.images.fingerprint()
        if list(self.places) == list(range(len(self.places))):
            return whole
        return hashlib.sha256(f"{whole} {list(self.places)}".encode()).hexdigest()


class PlannedImages:
    """Black images in place of those that are still to be made, by which an evaluation is checked before there are any.

    Args:
        count: How many there will be.
        size: Their height and width in pixels.
        name: What messages call the set.
    """

    captions = None

    def __init__(self, count: int, size: tuple[int, int], name: str) -> None:
        self.count, self.size, self.name = count, size, name

    def __len__(self) -> int:
        return self.count

    def pixels(self, number: int) -> Array:
        """A black image, uint8 (H, W, 3)."""
        return np.zeros((*self.size, 3), np.uint8)

    def fingerprint(self) -> str:
        """A text that no set of files has."""
        return f"planned {self.count} {self.size}"


def open_images(source: str | Path, resolution: int | None = None) -> ImageSet:
    """Open a set of images.

    Args:
        source: A folder, shards or tables as `train_data_dir` of a recipe takes them; a recipe (.yaml), of which the
            part `data` is read; or an `.npz` with images as `arr_0`.
        resolution: The side of the squares that images are cropped and resized to; None takes them as they are, except
            that a recipe's images have the recipe's resolution.

    Raises:
        InputError: If there is nothing that can be read.
    """
    path = Path(source)
    if path.suffix == ".npz":
        return ArrayImages(map_array(path, "arr_0"), path, resolution)
    if path.suffix in (".yaml", ".yml"):
        options = _data_of_recipe(path)
        return FileImages(read_records(options), resolution or options.resolution, options)
    options = from_mapping(DataOptions, {"train_data_dir": str(source)})
    return FileImages(read_records(options), resolution, options)


def image_name(images: ImageSet, number: int) -> str:
    """What pictures and messages call an image: its path in its folder, else its number."""
    return images.records.name_of(number) if isinstance(images, FileImages) else str(number)


def counted(images: ImageSet, count: int | None) -> int:
    """How many images are taken, all for None; InputError if there are not so many."""
    if count is not None and not 1 <= count <= len(images):
        raise InputError(f"{count} images of {images.name} are asked for; it has {len(images)}")
    return count or len(images)


def check_sizes(samples: ImageSet, reference: ImageSet | None) -> None:
    """InputError unless the first images of both are of one size."""
    if reference is None:
        return
    (height, width, _), (other, wide, _) = (images.pixels(0).shape for images in (samples, reference))
    if (height, width) != (other, wide):
        raise InputError(
            f"the images of {samples.name} are {width}x{height}, those of the reference {reference.name} "
            f"{wide}x{other}; give a resolution to crop and resize both to, as in training, or a reference of the "
            "samples' size"
        )


def _data_of_recipe(path: Path) -> DataOptions:
    """The part `data` of a recipe of any stage."""
    data = recipe_values(path).get("data")
    if not isinstance(data, dict):
        raise ConfigError(f"recipe {path} has no part data; give one that says where images come from")
    return from_mapping(DataOptions, data, str(path))


def map_array(path: Path, name: str) -> Array:
    """An array of an `.npz`; one that is not compressed, as `numpy.savez` writes it, is mapped and not read.

    Raises:
        InputError: If the file can't be read, has no such array, or the array is of objects.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if f"{name}.npy" not in archive.namelist():
                known = ", ".join(member.removesuffix(".npy") for member in archive.namelist()[:5])
                raise InputError(f"{path} has no array {name}, only {known}; images are in arr_0, moments in mu, sigma")
            member = archive.getinfo(f"{name}.npy")
            with archive.open(member) as stream:
                if member.compress_type != zipfile.ZIP_STORED:
                    return np.asarray(np.lib.format.read_array(stream, allow_pickle=False))
                version = np.lib.format.read_magic(stream)
                read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                shape, fortran, dtype = read(stream)
                header = stream.tell()
        with open(path, "rb") as file:
            file.seek(member.header_offset + 26)
            lengths = int.from_bytes(file.read(2), "little") + int.from_bytes(file.read(2), "little")
        if dtype.hasobject:
            raise ValueError("it holds objects")
        offset = member.header_offset + LOCAL_HEADER + lengths + header
        return np.memmap(path, dtype, "r", offset, shape, "F" if fortran else "C")
    except (OSError, ValueError, zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        if isinstance(error, InputError):
            raise
        raise BadFileError(f"{path} cannot be read as an .npz ({' '.join(str(error).split())}); replace it") from None
