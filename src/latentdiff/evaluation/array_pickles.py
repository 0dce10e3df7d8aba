"""Reading pickles of numpy arrays without running anything that they bring, not even numpy's own constructors.

Whatever a pickle names is looked up in a table of stand-ins, which note an array's type, shape and bytes.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from latentdiff.errors import CheckpointError, InputError, UnsafeCheckpointError, one_line
from latentdiff.types import Array

MAX_BYTES = 2**30
KINDS = ("f2", "f4", "f8", "i4", "i8", "u1")  # dtypes that are read
HINT = "give a file of moments that its own program wrote"


def read_arrays(path: Path) -> dict[str, Array]:
    """The arrays of a pickled mapping, or of one that `torch.save` wrote; those of an inner mapping "fid" come instead.

    Raises:
        UnsafeCheckpointError: If the pickle names anything but numpy's arrays.
        CheckpointError: If it is damaged, too large, or no mapping.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise CheckpointError(f"{path} is larger than {MAX_BYTES} bytes; {HINT}")
        found = _ArrayReader(io.BytesIO(_content(path))).load()
    except OSError as error:
        if isinstance(error, CheckpointError):
            raise
        raise InputError(f"{path} cannot be read ({error.strerror or one_line(error)}); {HINT}") from None
    except _RefusedError as error:
        raise UnsafeCheckpointError(f"{path} would run code to be read: {error}; {HINT}") from None
    except Exception as error:  # a damaged pickle may raise anything
        raise CheckpointError(f"{path} is damaged or no pickle ({one_line(error)}); {HINT}") from None
    if isinstance(found, Mapping) and isinstance(found.get("fid"), Mapping):
        found = found["fid"]
    if not isinstance(found, Mapping):
        raise CheckpointError(f"{path} holds no mapping of arrays; {HINT}")
    return {str(name): array.value() for name, array in found.items() if isinstance(array, _Array)}


def _content(path: Path) -> bytes:
    if not zipfile.is_zipfile(path):
        return path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        name = next((name for name in archive.namelist() if name.endswith("data.pkl")), None)
        if name is None or archive.getinfo(name).file_size > MAX_BYTES:
            raise CheckpointError(f"{path} is no file of torch.save, or too large; {HINT}")
        return archive.read(name)


class _RefusedError(Exception):
    """The pickle asks for something else than arrays."""


class _DType:
    """Stands for `numpy.dtype`."""

    def __init__(self, code: str = "", *_: object) -> None:
        self.code, self.order = code, "<"

    def __setstate__(self, state: tuple[object, ...]) -> None:
        self.order = ">" if state[1] == ">" else "<"

    def value(self) -> np.dtype[np.generic]:
        if self.code.lstrip("<>|=") not in KINDS:
            raise CheckpointError(f"an array has the dtype {self.code!r}; {', '.join(KINDS)} are read")
        return np.dtype(self.order + self.code.lstrip("<>|="))


class _Array:
    """Stands for an array."""

    def __init__(self, *_: object) -> None:
        self.state: tuple[object, ...] = ()

    def __setstate__(self, state: tuple[object, ...]) -> None:
        self.state = state

    def value(self) -> Array:
        """The array that the state describes."""
        try:
            _, shape, dtype, fortran, content = self.state
            assert isinstance(dtype, _DType) and isinstance(content, (bytes, bytearray)) and isinstance(shape, tuple)
            return np.frombuffer(content, dtype.value()).reshape(shape, order="F" if fortran else "C")
        except (ValueError, AssertionError, TypeError):
            raise CheckpointError("an array's bytes don't fit its shape; fetch the file again") from None


class _FromBuffer(_Array):
    """Stands for what pickles of protocol 5 make arrays with."""

    def __init__(self, content: object, dtype: object, shape: object, order: str) -> None:
        super().__init__()
        self.state = (1, shape, dtype, order == "F", content)


class _Latin1:
    """Stands for `_codecs.encode`, by which pickles of protocol 2 write bytes."""

    def __new__(cls, text: str, codec: str) -> bytes:  # type: ignore[misc]
        if codec != "latin1":
            raise _RefusedError(f"it encodes text as {codec!r}")
        return text.encode("latin1")

    def __setstate__(self, state: object) -> None:
        raise _RefusedError("it changes a function")


class _ArrayReader(pickle.Unpickler):
    """Reads pickles of arrays, and knows nothing else that could be called."""

    KNOWN: Mapping[str, object] = {
        "numpy.ndarray": _Array,
        "numpy.dtype": _DType,
        "_codecs.encode": _Latin1,
        **{f"numpy.{core}.multiarray._reconstruct": _Array for core in ("core", "_core")},
        **{f"numpy.{core}.numeric._frombuffer": _FromBuffer for core in ("core", "_core")},
    }

    def find_class(self, module: str, name: str) -> object:
        if f"{module}.{name}" not in self.KNOWN:
            raise _RefusedError(f"it names {module}.{name}")
        return self.KNOWN[f"{module}.{name}"]
