"""Reading `.npy` files that are images, without trust in what their headers say."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from typing import IO, Any

import numpy as np

from latentdiff.errors import BadFileError, LatentDiffError, one_line
from latentdiff.io.images import Box, checked_shape
from latentdiff.io.stored import Stored, open_stored
from latentdiff.types import Array

NPY_SIGNATURE = b"\x93NUMPY"
NPY_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def read_npy(source: Stored, area: Box | None = None) -> Array:
    """The values (H, W, C) of an array, or of an area of it, of which no other rows are read.

    Raises:
        BadFileError: If it is damaged, or that of no image.
    """
    with _bad_array(source), open_stored(source) as stream:
        shape, fortran_order, dtype = _npy_header(stream)
        height, width, channels = whole = checked_shape(shape, dtype, source)
        left, top, right, bottom = area or (0, 0, width, height)
        if not fortran_order:
            row = width * channels * dtype.itemsize
            stream.seek(top * row, os.SEEK_CUR)
            rows = np.frombuffer(stream.read((bottom - top) * row), dtype).reshape(bottom - top, width, channels)
            return rows[:, left:right]
        values = np.frombuffer(stream.read(math.prod(shape) * dtype.itemsize), dtype)
        return values.reshape(shape, order="F").reshape(whole)[top:bottom, left:right]


def npy_shape(source: Stored) -> tuple[int, int, int]:
    """Height, width and channels of an array by its header alone; raises as `read_npy`."""
    with _bad_array(source), open_stored(source) as stream:
        shape, _, dtype = _npy_header(stream)
        return checked_shape(shape, dtype, source)


def _npy_header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether the first axis is the fastest, and type of an array; ValueError unless its data is all there."""
    version = np.lib.format.read_magic(stream)
    if version not in NPY_HEADERS:
        raise ValueError(f"its format has the version {version}; known: {', '.join(map(str, NPY_HEADERS))}")
    shape, fortran_order, dtype = NPY_HEADERS[version](stream)
    start = stream.tell()
    stored, needed = stream.seek(0, os.SEEK_END) - start, math.prod(shape) * dtype.itemsize
    if dtype.kind != "O" and stored < needed:
        raise ValueError(f"it has {stored} bytes of data where {dtype} of shape {shape} takes {needed}")
    stream.seek(start)
    return shape, fortran_order, dtype


@contextlib.contextmanager
def _bad_array(source: Stored) -> Iterator[None]:
    """Turn whatever goes wrong with a `.npy` into a BadFileError of its name."""
    try:
        yield
    except LatentDiffError:
        raise
    except Exception as error:  # numpy evaluates the header as Python's literals
        raise BadFileError(f"{source} cannot be read as an array ({one_line(error)}); replace it") from None
