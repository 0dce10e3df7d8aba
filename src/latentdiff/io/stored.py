"""Where the bytes of an image lie: a file, a part of a tar file, or a cell of a table."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal, Protocol

from latentdiff.errors import BadFileError


class Stored(Protocol):
    """What can be opened as a `pathlib.Path` can, which is one; `str` of it is what an error calls it."""

    @property
    def name(self) -> str:
        """The last part of its path."""

    def open(self, mode: Literal["rb"], /) -> IO[bytes]:
        """A stream of its bytes, at the first."""


@dataclass(frozen=True, slots=True)
class TarMember:
    """A file in an uncompressed tar file, read at its offset: no other part of the archive is.

    Attributes:
        archive: The tar file.
        name: Of the member.
        offset: Of its first byte in the archive.
        size: In bytes.
    """

    archive: Path
    name: str
    offset: int
    size: int

    def open(self, mode: Literal["rb"], /) -> IO[bytes]:
        """See `Stored`."""
        with open(self.archive, mode) as file:
            file.seek(self.offset)
            return io.BytesIO(file.read(self.size))

    def __str__(self) -> str:
        return os.path.join(self.archive, self.name)


@dataclass(frozen=True, slots=True)
class Cell:
    """The bytes of an image in a row of a table.

    Attributes:
        name: What an error calls it.
        row: The number of the row.
        read: Row numbers to bytes.
    """

    name: str
    row: int
    read: Callable[[int], bytes]

    def open(self, mode: Literal["rb"], /) -> IO[bytes]:
        """See `Stored`."""
        return io.BytesIO(self.read(self.row))

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Loaded:
    """Bytes that have been read.

    Attributes:
        name: What an error calls the file that they are from.
        content: The bytes.
    """

    name: str
    content: bytes

    def open(self, mode: Literal["rb"], /) -> IO[bytes]:
        """See `Stored`."""
        return io.BytesIO(self.content)

    def __str__(self) -> str:
        return self.name


def load(source: Stored) -> Loaded:
    """All bytes of a file, so that it need be opened only once.

    Raises:
        BadFileError: If it can't be read.
    """
    try:
        with source.open("rb") as stream:
            return Loaded(str(source), stream.read())
    except OSError as error:
        raise BadFileError(f"{source} cannot be read ({error.strerror}); replace it") from None
