"""Texts about images, wherever they lie: UTF-8, or refused with the name of their file."""

from __future__ import annotations

from pathlib import Path

from latentdiff.errors import InputError
from latentdiff.io.file_kinds import HEAD_BYTES, other_file
from latentdiff.reading import open_file


def read_text_file(path: Path) -> str:
    """The text of a file, with the line ends that it has; raises as `decode_text`, and if it can't be read."""
    try:
        with open_file(path) as file:
            content = file.read()
    except OSError as error:
        raise InputError(f"{path} can't be read ({error.strerror}); replace it") from None
    return decode_text(content, path)


def decode_text(content: bytes, name: object) -> str:
    """The text that bytes are in UTF-8, without a mark at its start; `name` is what errors call it.

    Raises:
        InputError: If they are no UTF-8, or a pointer to the file that Git LFS has not fetched.
    """
    pointer = other_file(content[:HEAD_BYTES], "pointer")
    if pointer is not None:
        raise InputError(f"{name} is {pointer}")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{name} is not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8") from None
