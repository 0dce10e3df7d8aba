"""Files of named tensors: names and shapes are known when a file is opened, a tensor is read when it is needed."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from latentdiff.compat import storage_offset
from latentdiff.errors import CheckpointError
from latentdiff.io.file_kinds import HEAD_BYTES, check_regular_file, refuse_other_formats
from latentdiff.io.headers import DTYPE_NAMES, MAX_HEADER_BYTES, read_header
from latentdiff.io.pickles import Metadata, find_state_dict, items_of, load_pickle

Key = TypeVar("Key")


@dataclass(frozen=True)
class TensorInfo:
    """The dtype and shape of a tensor, which are known without reading it."""

    dtype: torch.dtype
    shape: tuple[int, ...]


# What names begin with that were saved from DistributedDataParallel, DeepSpeed or torch.compile.
WRAPPER = re.compile(r"((module|_forward_module|_orig_mod)\.)+")


class TensorFile:
    """Named tensors in memory, and the base class of those in files.

    Args:
        tensors: The tensors by their names.
        metadata: Numbers and strings that are stored beside them, such as `global_step`.
    """

    def __init__(self, tensors: Mapping[str, Tensor], metadata: Metadata | None = None) -> None:
        self._tensors = tensors
        self.metadata = dict(metadata or {})

    def keys(self) -> list[str]:
        """All names, in the file's order."""
        return list(self._tensors)

    def info(self, key: str) -> TensorInfo:
        """The dtype and shape of a tensor."""
        tensor = self._tensors[key]
        return TensorInfo(tensor.dtype, tuple(tensor.shape))

    def read(self, key: str) -> Tensor:
        """Read a tensor, as a contiguous one that owns its memory.

        Raises:
            CheckpointError: If it holds values that are not finite, or the file ends before it.
        """
        return check_finite(key, self._tensors[key].detach().to("cpu").contiguous().clone())


class SafetensorsFile(TensorFile):
    """A safetensors file. It is read and not mapped, since mapped pages would count as memory of this process."""

    def __init__(self, path: Path) -> None:
        super().__init__({})
        self.path = path
        self.header = read_header(path)
        with open(path, "rb") as file:
            self.start = 8 + int.from_bytes(file.read(8), "little")
        if not self.header:
            raise CheckpointError(f"{path} holds no tensors; give a checkpoint of a model")
        for name, entry in self.header.items():
            if not name.isprintable():
                raise CheckpointError(f"{path} has a tensor named {name!r}; names must be text")
            if not hasattr(torch, DTYPE_NAMES[entry["dtype"]]):
                raise CheckpointError(f"{path}: {name} has the dtype {entry['dtype']}, which this torch doesn't have")

    def keys(self) -> list[str]:
        """All names, in the file's order."""
        return list(self.header)

    def info(self, key: str) -> TensorInfo:
        """The dtype and shape of a tensor."""
        entry = self.header[key]
        return TensorInfo(getattr(torch, DTYPE_NAMES[entry["dtype"]]), tuple(entry["shape"]))

    def read(self, key: str) -> Tensor:
        """Read a tensor; no other bytes of the file are read."""
        info = self.info(key)
        begin, end = self.header[key]["data_offsets"]
        return check_finite(
            key, read_bytes(self.path, self.start + begin, end - begin).view(info.dtype).view(info.shape)
        )


class ZipFile(TensorFile):
    """A checkpoint of `torch.save`; its tensors are on the meta device and know where their data is in the file."""

    def __init__(self, path: Path, tensors: Mapping[str, Tensor], metadata: Metadata) -> None:
        super().__init__(tensors, metadata)
        self.path = path
        size = path.stat().st_size
        for key, tensor in tensors.items():
            begin, length = _span(tensor)
            if begin + length > size or tensor.numel() * tensor.itemsize > size:
                raise CheckpointError(f"{path}: the data of {key} lies beyond the end of the file; fetch it again")

    def read(self, key: str) -> Tensor:
        """Read a tensor; no other bytes of the file are read."""
        tensor = self._tensors[key]
        begin, length = _span(tensor)
        flat = read_bytes(self.path, begin, length).view(tensor.dtype)
        return check_finite(key, torch.as_strided(flat, tensor.shape, tensor.stride()).contiguous())


def _span(tensor: Tensor) -> tuple[int, int]:
    """The first byte of a meta tensor's elements in the file, and the number of bytes from there."""
    if tensor.numel() == 0:
        return 0, 0
    last = sum((side - 1) * stride for side, stride in zip(tensor.shape, tensor.stride(), strict=True))
    start = storage_offset(tensor)
    if start is None:
        raise CheckpointError("a tensor of the file has no storage in it; fetch it again")
    return start + int(tensor.storage_offset()) * tensor.itemsize, (last + 1) * tensor.itemsize


def read_bytes(path: Path, begin: int, length: int) -> Tensor:
    """Read `length` bytes of a file, from `begin` on, as a uint8 tensor.

    Raises:
        CheckpointError: If the file ends before.
    """
    data = torch.empty(length, dtype=torch.uint8)
    with open(path, "rb") as file:
        file.seek(begin)
        if length and file.readinto(data.numpy().data) != length:
            raise CheckpointError(f"{path} has become shorter while it was read; fetch it again")
    return data


def check_finite(key: str, tensor: Tensor) -> Tensor:
    """Return the tensor if all of its values are finite.

    Raises:
        CheckpointError: If a value is infinite or not a number.
    """
    if tensor.is_floating_point() and tensor.numel():
        low, high = torch.aminmax(tensor.float() if tensor.itemsize == 1 else tensor)
        if not math.isfinite(low) or not math.isfinite(high):
            raise CheckpointError(
                f"{key} holds values that are not finite; the file is damaged or its training diverged"
            )
    return tensor


def open_tensors(source: str | Path | Mapping[str, Tensor]) -> TensorFile:
    """Open a safetensors file, a checkpoint of `torch.save`, or a state dict. No code in a file is run.

    Raises:
        UnsafeCheckpointError: If the file can't be read without running code that it brings.
        CheckpointError: If it is missing, damaged, of another format, or holds no tensors.
    """
    if isinstance(source, Mapping):
        return TensorFile(check_tensors("the state dict", source))
    path = Path(source)
    check_regular_file(path)
    try:
        with open(path, "rb") as file:
            head = file.read(HEAD_BYTES)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror}); check its permissions") from None
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= MAX_HEADER_BYTES:
        return SafetensorsFile(path)
    refuse_other_formats(path, head)
    state, metadata = find_state_dict(path, load_pickle(path))
    tensors = _without_wrappers(check_tensors(str(path), state))
    if any(tensor.device.type == "meta" for tensor in tensors.values()):
        return ZipFile(path, tensors, metadata)
    return TensorFile(tensors, metadata)


def _without_wrappers(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors by their names in the model itself, if it was saved inside of what runs it on several devices."""
    found = {match[0] if (match := WRAPPER.match(key)) else "" for key in tensors}
    start = found.pop() if len(found) == 1 else ""
    return {key.removeprefix(start): tensor for key, tensor in tensors.items()}


def check_tensors(where: str, state: Mapping[Key, object]) -> dict[str, Tensor]:
    """The tensors of a state dict; `where` is what errors call it.

    Raises:
        CheckpointError: If there is none, a name is no text, or a tensor is sparse, quantised or complex.
    """
    tensors: dict[str, Tensor] = {}
    for key, tensor in items_of(state):
        if not isinstance(tensor, Tensor):
            continue
        if not isinstance(key, str) or not key.isprintable():
            name = repr(key) if isinstance(key, (str, int)) else f"by a {type(key).__name__}"
            raise CheckpointError(f"{where} has a tensor named {name}; names must be text")
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_complex():
            raise CheckpointError(
                f"{where}: {key} is {tensor.dtype}, {tensor.layout}; only dense real tensors are read"
            )
        tensors[key] = tensor
    if not tensors:
        raise CheckpointError(f"{where} holds no tensors; give a checkpoint of a model")
    return tensors
