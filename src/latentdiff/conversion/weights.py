"""The weights of a component, wherever they are: known by name, dtype and shape, and read one tensor at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from latentdiff.conversion.original import OpenedCheckpoint
from latentdiff.conversion.plan import ComponentPlan
from latentdiff.io.tensor_files import TensorFile, TensorInfo
from latentdiff.nn.int8 import check_whole
from latentdiff.types import Components

BytesWritten = Callable[[int], object]
"""A function that is called with the number of bytes written since the last call."""


class Weights(Protocol):
    """The tensors of a component, under our names."""

    @property
    def infos(self) -> Mapping[str, TensorInfo]:
        """The dtype and shape of each, in the order in which they are best read."""

    def read(self, name: str) -> Tensor:
        """The tensor of this name.

        Raises:
            CheckpointError: If it can't be read, or holds values that are not finite.
        """


class ModuleWeights:
    """The weights of a component in memory.

    Args:
        module: The component.
        dtype: The data type of the floating-point tensors; None keeps theirs.
    """

    def __init__(self, module: nn.Module, dtype: torch.dtype | None = None) -> None:
        self.state: dict[str, Tensor] = module.state_dict()
        self.dtype = dtype
        self.infos = {name: _info(t.dtype, tuple(t.shape), dtype) for name, t in self.state.items()}

    def read(self, name: str) -> Tensor:
        """The tensor of this name."""
        return self.state[name].detach().to(self.infos[name].dtype)


class FileWeights:
    """The weights of a component in files that have our names.

    Args:
        files: The files, each with some of the tensors.
        dtype: The data type of the floating-point tensors; None keeps theirs.
    """

    def __init__(self, files: Sequence[TensorFile], dtype: torch.dtype | None = None) -> None:
        self.places = {name: file for file in files for name in file.keys()}  # noqa: SIM118
        stored = {name: file.info(name) for name, file in self.places.items()}
        self.infos = {name: _info(info.dtype, info.shape, dtype) for name, info in stored.items()}

    def read(self, name: str) -> Tensor:
        """The tensor of this name."""
        return self.places[name].read(name).to(self.infos[name].dtype)


class OriginalWeights:
    """The weights of a component in an original checkpoint.

    A tensor that is several of ours is kept until another is read, so that it is read once.

    Args:
        opened: The checkpoint.
        part: The plan of the component.
        dtype: The data type of the floating-point tensors; None keeps theirs.
    """

    def __init__(self, opened: OpenedCheckpoint, part: ComponentPlan, dtype: torch.dtype | None = None) -> None:
        self.opened, self.part = opened, part
        self.infos: dict[str, TensorInfo] = {}
        for key, names in part.map.sources.items():
            stored = opened.info(key)
            self.infos |= {name: _info(stored.dtype, part.map.shapes[name], dtype) for name in names}
        self.ready: dict[str, Tensor] = {}

    def read(self, name: str) -> Tensor:
        """The tensor of this name."""
        if name not in self.ready:
            self.ready = self.part.map.parts_of(self.part.map.places[name].key, self.opened.read)
        return self.ready.pop(name).to(self.infos[name].dtype)


def weights_of(
    components: Components, given: Mapping[str, Weights] | None = None, dtype: torch.dtype | None = None
) -> dict[str, Weights]:
    """The weights of the networks among components: those that are given, else those in memory, as `dtype`."""
    found: dict[str, Weights] = dict(given or {})
    for name, part in components.items():
        if isinstance(part, nn.Module) and name not in found:
            check_whole(name, part, "which can't be converted; load it without quantize")
            found[name] = ModuleWeights(part, dtype)
    return found


def report_bytes(tensors: Iterator[tuple[str, Tensor]], progress: BytesWritten | None) -> Iterator[tuple[str, Tensor]]:
    """Pass tensors on, and call `progress` with the bytes of each when it has been used."""
    for key, tensor in tensors:
        yield key, tensor
        if progress is not None:
            progress(tensor.nbytes)


def _info(stored: torch.dtype, shape: tuple[int, ...], dtype: torch.dtype | None) -> TensorInfo:
    """The dtype and shape of a tensor that is stored as `stored` and wanted as `dtype`, if that is given."""
    return TensorInfo(dtype if dtype is not None and stored.is_floating_point else stored, shape)
