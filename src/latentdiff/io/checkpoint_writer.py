"""Writing checkpoints of `torch.save`'s format one tensor at a time, so that only one is in memory.

The file is an uncompressed zip archive: a pickle, which describes the tensors, and a record of bytes for each storage.
`torch.save` writes it from tensors that are all in memory.
"""

from __future__ import annotations

import io
import math
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO

import torch
from torch import Tensor

from latentdiff.compat import rebuild_tensor
from latentdiff.errors import ConfigError
from latentdiff.io.safetensors_writer import TensorLayout

ROOT = "archive"
PROTOCOL = 2  # that of torch.save
FORMAT_VERSION = "3\n"
ALIGNMENT = 64  # of a storage's first byte, by which the file can be mapped
LOCAL_HEADER_BYTES = 30  # of a record of a zip file, before its name and its extra field
ZIP64_FIELD_BYTES = 20  # of the extra field with sizes above 4 GB, which `zipfile` adds by itself
PADDING_ID = b"FB"  # of the extra field that holds nothing, as torch has it


class _Stored:
    """A tensor that is described and not held; it is pickled as torch pickles a tensor.

    Args:
        key: The name of its storage's record.
        dtype: Its data type.
        shape: Its shape.
    """

    def __init__(self, key: str, dtype: torch.dtype, shape: Sequence[int]) -> None:
        self.key, self.dtype, self.shape = key, dtype, tuple(shape)

    def __reduce__(self) -> tuple[object, ...]:
        strides = tuple(math.prod(self.shape[place + 1 :]) for place in range(len(self.shape)))
        return rebuild_tensor(), (_Storage(self), 0, self.shape, strides, False, OrderedDict())


class _Storage:
    """The storage of a described tensor."""

    def __init__(self, tensor: _Stored) -> None:
        self.tensor = tensor


class _Pickler(pickle.Pickler):
    def persistent_id(self, obj: object) -> tuple[object, ...] | None:
        """Storages are named in a pickle, and lie beside it."""
        if not isinstance(obj, _Storage):
            return None
        tensor = obj.tensor
        return "storage", _storage_class(tensor.dtype), tensor.key, "cpu", math.prod(tensor.shape)


STORAGE_NAMES = {
    torch.float64: "Double",
    torch.float32: "Float",
    torch.float16: "Half",
    torch.bfloat16: "BFloat16",
    torch.int64: "Long",
    torch.int32: "Int",
    torch.int16: "Short",
    torch.int8: "Char",
    torch.uint8: "Byte",
    torch.bool: "Bool",
}


def _storage_class(dtype: torch.dtype) -> type:
    found: type = getattr(torch, f"{STORAGE_NAMES[dtype]}Storage")
    return found


def write_checkpoint(
    path: Path,
    layout: TensorLayout,
    tensors: Iterable[tuple[str, Tensor]],
    *,
    copies: Mapping[str, str],
    metadata: Mapping[str, int],
) -> None:
    """Write a file that `torch.load` reads as `{"state_dict": ..., **metadata}`.

    Args:
        path: The file. Give a temporary name, since the file is incomplete until this returns.
        layout: The name, dtype and shape of every tensor.
        tensors: The names and tensors, in the same order.
        copies: Further names, each of the same tensor as one in the layout.
        metadata: Numbers beside the tensors.

    Raises:
        ConfigError: If the format has no such dtype; nothing has been written then.
        ValueError: If a tensor is not the one that the layout says.
    """
    for name, dtype, _ in layout:
        if dtype not in STORAGE_NAMES:
            raise ConfigError(f"{name} is {dtype}, which original checkpoints can't hold; give another dtype")
    state = {name: _Stored(str(place), dtype, shape) for place, (name, dtype, shape) in enumerate(layout)}
    state |= {copy: state[name] for copy, name in copies.items()}
    content = io.BytesIO()
    _Pickler(content, PROTOCOL).dump({"state_dict": state, **metadata})
    with open(path, "wb") as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(f"{ROOT}/data.pkl", content.getvalue())
        archive.writestr(f"{ROOT}/byteorder", "little")
        for place, ((name, dtype, shape), (given, tensor)) in enumerate(zip(layout, tensors, strict=True)):
            if given != name or tensor.dtype != dtype or tuple(tensor.shape) != tuple(shape):
                raise ValueError(f"{given} {tensor.dtype} {tuple(tensor.shape)} where {name} {dtype} was announced")
            _write_storage(archive, file, f"{ROOT}/data/{place}", tensor)
        archive.writestr(f"{ROOT}/version", FORMAT_VERSION)


def _write_storage(archive: zipfile.ZipFile, file: IO[bytes], name: str, tensor: Tensor) -> None:
    """Write the bytes of a tensor as a record of their own, which begins at a multiple of `ALIGNMENT`."""
    record = zipfile.ZipInfo(name)
    header = file.tell() + LOCAL_HEADER_BYTES + len(name) + ZIP64_FIELD_BYTES + len(PADDING_ID) + 2
    padding = -header % ALIGNMENT
    record.extra = PADDING_ID + padding.to_bytes(2, "little") + bytes(padding)
    with archive.open(record, "w", force_zip64=True) as storage:
        if tensor.numel():
            storage.write(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
