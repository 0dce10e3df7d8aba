"""Arrays in `.npy` files that are read from disk as they are needed, and made without a full disk being a signal."""

from __future__ import annotations

from pathlib import Path
from typing import Generic, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from latentdiff.errors import one_line
from latentdiff.io.system import allocate

ScalarT = TypeVar("ScalarT", bound=np.generic)
Mapped: TypeAlias = "np.memmap[tuple[int, ...], np.dtype[ScalarT]]"


def create_mapped(path: Path, dtype: type[ScalarT], shape: tuple[int, ...]) -> Mapped[ScalarT]:
    """A new array of zeros in a file, mapped for writing.

    All of its space is allocated first. A page of a mapped file that finds no space when it is written would be a
    signal (SIGBUS), which ends the process without a word.

    Raises:
        OSError: If there is no space for it.
    """
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        file.flush()
        allocate(file.fileno(), file.tell() + int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize)
    rows: Mapped[ScalarT] = np.lib.format.open_memmap(path, "r+")
    return rows


class MappedArray(Generic[ScalarT]):
    """An array in a file, of which rows are read when they are asked for. Pickled, it is the file's path.

    Args:
        path: The `.npy` file.

    Attributes:
        rows: The array, mapped.

    Raises:
        OSError, ValueError: If there is no such file, or it is damaged or cut off.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.rows: NDArray[ScalarT] = np.load(path, mmap_mode="r", allow_pickle=False)
        except OSError:
            raise
        except Exception as error:  # the header of a damaged file may raise anything
            raise ValueError(f"{path} is damaged ({one_line(error)})") from None

    def __reduce__(self) -> tuple[type[MappedArray[ScalarT]], tuple[Path]]:
        return MappedArray, (self.path,)  # a process that starts afresh maps the file, too, not a copy
