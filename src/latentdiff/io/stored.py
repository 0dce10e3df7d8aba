"""The places where the bytes of an image can be: a file, a part of a tar file, a cell of a table, or memory."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal, Protocol

from latentdiff.errors import BadFileError
from latentdiff.reading import open_file

MAX_FILE_BYTES = 2**32
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
WRITTEN_KINDS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}  # suffixes, and Pillow's names


class Stored(Protocol):
    """A place that can be opened for reading, as a `pathlib.Path` can; its `str` is its name in errors."""

    @property
    def name(self) -> str:
        """The last part of its path."""

    def open(self, mode: Literal["rb"], /) -> IO[bytes]:
        """A stream of its bytes, from the first."""


@dataclass(frozen=True, slots=True)
class TarMember:
    """A file in an uncompressed tar file, which is read at its offset, without the rest of the archive.

    Attributes:
        archive: The tar file.
        name: The name of the file in it.
        offset: The offset of the file's first byte in the archive.
        size: The size of the file in bytes.
    """

    archive: Path
    name: str
    offset: int
    size: int

    def open(self, mode: Literal["rb"], /) -> IO[bytes]:
        """A stream of the file's bytes."""
        with open_file(self.archive) as file:
            file.seek(self.offset)
            return io.BytesIO(file.read(self.size))

    def __str__(self) -> str:
        return os.path.join(self.archive, self.name)


@dataclass(frozen=True, slots=True)
class Cell:
    """The bytes of an image in a row of a table.

    Attributes:
        name: The name of the cell in errors.
        row: The number of the row.
        read: The function that returns the bytes of a row number.
    """

    name: str
    row: int
    read: Callable[[int], bytes]

    def open(self, mode: Literal["rb"], /) -> IO[bytes]:
        """A stream of the cell's bytes."""
        return io.BytesIO(self.read(self.row))

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class InMemory:
    """Bytes that have been read.

    Attributes:
        name: The name, in errors, of the file that they are from.
        content: The bytes.
    """

    name: str
    content: bytes

    def open(self, mode: Literal["rb"], /) -> IO[bytes]:
        """A stream of the bytes."""
        return io.BytesIO(self.content)

    def __str__(self) -> str:
        return self.name


def open_stored(source: Stored | str) -> IO[bytes]:
    """A stream of the bytes of what is stored anywhere; OSError for a path of anything but a regular file."""
    return open_file(source) if isinstance(source, (str, Path)) else source.open("rb")


def read_into_memory(source: Stored) -> InMemory:
    """Read all bytes of a file, so that it is opened only once.

    Raises:
        BadFileError: If it can't be read, or is larger than any image.
    """
    try:
        with open_stored(source) as stream:
            size = stream.seek(0, os.SEEK_END)
            if size > MAX_FILE_BYTES:
                raise BadFileError(f"{source} has {size} bytes; at most {MAX_FILE_BYTES} are read as an image")
            stream.seek(0)
            return InMemory(str(source), stream.read())
    except OSError as error:
        raise BadFileError(f"{source} cannot be read ({error.strerror}); replace it") from None
