"""The chunks of PNG files, read without decoding: the texts, and the pixels without texts that Pillow refuses."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from typing import IO, NamedTuple

SIGNATURE = b"\x89PNG\r\n\x1a\n"
TEXTS = (b"tEXt", b"zTXt", b"iTXt")
TURNING_TEXTS = (b"XML:com.adobe.xmp\0", b"Raw profile type exif\0")  # which may say how the picture is to be turned
LONGEST_KEY = 79
MAX_CHUNKS = 2**20  # the pixels of a large picture lie in tens of thousands


class Chunk(NamedTuple):
    """A chunk: its kind, and where its data begins and how long that is."""

    kind: bytes
    start: int
    length: int


def chunks(stream: IO[bytes]) -> Iterator[Chunk]:
    """The chunks of a PNG, the first MAX_CHUNKS; none of what is no PNG. The stream may be read between them."""
    stream.seek(0)
    if stream.read(len(SIGNATURE)) != SIGNATURE:
        return
    place = len(SIGNATURE)
    for _ in range(MAX_CHUNKS):
        stream.seek(place)
        head = stream.read(8)
        if len(head) < 8:
            return
        length, kind = struct.unpack(">I4s", head)
        yield Chunk(kind, place + 8, length)
        place += length + 12  # length, kind and checksum


def find_text(stream: IO[bytes], key: str, most: int) -> str | None:
    """The text that a PNG has under a key, compressed or not; None if it has none, or is no PNG.

    Args:
        stream: The file.
        key: The key.
        most: The bytes that it may have.

    Raises:
        ValueError: If the PNG is cut off, or the text is too long or damaged.
    """
    found, kind = None, b""
    for kind, start, length in chunks(stream):
        if kind in TEXTS and found is None:
            stream.seek(start)
            name, _, rest = stream.read(min(length, most + LONGEST_KEY + 1)).partition(b"\0")
            if name == key.encode():
                if length > most:
                    raise ValueError(f"its text {key} has more than {most} bytes")
                found = _text(kind, rest, most)
    if kind not in (b"IEND", b""):
        raise ValueError("it is cut off")
    return found


def _text(kind: bytes, data: bytes, most: int) -> str:
    """The text of a chunk after its key."""
    packed = kind == b"zTXt"
    if packed:
        data = data[1:]  # the number of the method, of which there is one
    elif kind == b"iTXt":
        packed, data = data[:1] == b"\1", data[2:].split(b"\0", 2)[-1]
    if packed:
        unpack = zlib.decompressobj()
        try:
            data = unpack.decompress(data, most)
        except zlib.error as error:
            raise ValueError(str(error)) from None
        if unpack.unconsumed_tail:
            raise ValueError(f"its text has more than {most} bytes")
    return data.decode("utf-8" if kind == b"iTXt" else "latin-1")


def without_texts(stream: IO[bytes]) -> IO[bytes] | None:
    """A PNG without its texts and its colour profile, which Pillow refuses from 1 MiB on; None if it has neither.

    What may say how the picture is to be turned stays.
    """
    kept, left_out = [SIGNATURE], False
    for kind, start, length in chunks(stream):
        stream.seek(start - 8)
        data = stream.read(length + 12)
        if kind == b"iCCP" or (kind in TEXTS and not data[8:].startswith(TURNING_TEXTS)):
            left_out = True
        else:
            kept.append(data)
    return io.BytesIO(b"".join(kept)) if left_out else None


def may_be_turned(stream: IO[bytes]) -> bool:
    """Whether a PNG has a chunk that may say how it is to be turned."""
    for kind, start, length in chunks(stream):
        if kind == b"eXIf":
            return True
        if kind in TEXTS:
            stream.seek(start)
            if stream.read(min(length, LONGEST_KEY + 1)).startswith(TURNING_TEXTS):
                return True
    return False
