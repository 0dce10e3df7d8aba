"""Comparing what was loaded with what the files hold: libraries fill gaps, skip tensors and follow redirections."""

from __future__ import annotations

import re
import zlib
from collections.abc import Collection, Iterator, Mapping, Set

import numpy as np
import torch
from torch import Tensor, nn

from latentdiff.errors import CheckpointError
from latentdiff.hub.component_folder import ComponentFolder
from latentdiff.io.headers import DTYPE_NAMES, TensorEntry

VALUES = 64  # of a tensor that are compared, in a row; all of a smaller one


class StoredTensors:
    """The tensors of a component's files, of which a few values are read.

    Args:
        part: The component's folder.
    """

    def __init__(self, part: ComponentFolder) -> None:
        self.entries = part.tensors
        self.data, self.begins = {}, {}
        for path, header in part.headers.items():
            data = np.memmap(path, mode="c")  # torch wants memory that could be written
            begin = 8 + int.from_bytes(data[:8].tobytes(), "little")
            for name in header:
                self.data[name], self.begins[name] = data.data, begin

    def values(self, name: str, start: int, count: int) -> Tensor:
        """Some values of a tensor (count,), from the given one on."""
        entry = self.entries[name]
        dtype = getattr(torch, DTYPE_NAMES[entry["dtype"]])
        begin = self.begins[name] + entry["data_offsets"][0] + start * dtype.itemsize
        return torch.frombuffer(self.data[name], dtype=dtype, count=count, offset=begin)


def check_loaded(part: ComponentFolder, network: nn.Module) -> None:
    """Check that a network has got its tensors from a component's files, and all of them.

    Names, shapes and kinds of numbers are compared for all tensors, and of each tensor 64 values in a row, at a place
    that is drawn from its name: reading every value would double the time of a load. A library may know a tensor under
    an older name; it is the tensor of that shape and those values then.

    Args:
        part: The component's folder.
        network: What was loaded from it, in whatever data type and on whatever device.

    Raises:
        CheckpointError: If the files lack a tensor of the network, the network lacks one of the files that belongs to
            it, or their values differ.
    """
    if getattr(network, "hf_quantizer", None) is not None:
        return  # packed on loading, as the user asked for: names, shapes and values are other ones
    try:
        _check(part, network)
    except CheckpointError:
        raise
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{part.path} cannot be read ({error}); fetch or save the model again") from None


def _check(part: ComponentFolder, network: nn.Module) -> None:
    stored, state = StoredTensors(part), network.state_dict()
    if _has_own_names(part, type(network)):
        part.check_tensors(state.keys())
    used = _equal_under_own_names(stored, state)
    if len(used) < len(state):
        buffers = {name for name, _ in network.named_buffers()}
        for name, tensor in _distinct(state):
            found = name if name in used else _find(stored, name, tensor)
            if found is not None:
                used.add(found)
            elif name in part.tensors:
                raise CheckpointError(
                    f"{part.path}: {name} is loaded as {_kind(tensor)} of other values than the file's "
                    f"{_stored_kind(part.tensors[name])}; fetch or save the model again"
                )
            elif name not in buffers:
                raise CheckpointError(
                    f"{part.path} lacks the tensor {name} of {_kind(tensor)}; fetch or save the model again"
                )
    check_left_out(part, part.tensors.keys() - used, used, type(network))


def _has_own_names(part: ComponentFolder, kind: type) -> bool:
    """Whether a component's files have all tensors of the class by the names that the class has for them."""
    is_own = kind.__module__.startswith(("latentdiff.", "diffusers."))
    return is_own and "_class_name" in part.config and not part.has_old_attention


def _distinct(state: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """The tensors, those that share their memory once: a file holds one of them, under any of their names."""
    seen = set()
    for name, tensor in state.items():
        place = (tensor.data_ptr(), tensor.shape)
        if tensor.device.type == "meta" or not tensor.numel() or place not in seen:
            yield name, tensor
        seen.add(place)


def _equal_under_own_names(stored: StoredTensors, state: Mapping[str, Tensor]) -> set[str]:
    """The names under which a network and its files have the same tensor, if all that share a data type are equal.

    All are compared at once, which is what takes little time; where one differs, `_find` looks at each.
    """
    kinds: dict[tuple[str, torch.dtype, torch.device], list[str]] = {}
    for name, tensor in state.items():
        entry = stored.entries.get(name)
        if entry is not None and tensor.device.type != "meta" and entry["shape"] == list(tensor.shape) != [0]:
            kinds.setdefault((entry["dtype"], tensor.dtype, tensor.device), []).append(name)
    equal: set[str] = set()
    for names in kinds.values():
        places = [_place(name, state[name]) for name in names]
        loaded = [
            state[name].detach().reshape(-1)[start : start + count]
            for name, (start, count) in zip(names, places, strict=True)
        ]
        kept = [stored.values(name, *place) for name, place in zip(names, places, strict=True)]
        left, right = torch.cat(loaded).to("cpu"), torch.cat(kept)
        if left.is_floating_point() == right.is_floating_point() and torch.equal(left, right.to(left.dtype)):
            equal.update(names)
    return equal


def _place(name: str, tensor: Tensor) -> tuple[int, int]:
    """Where the values of a tensor begin that are compared, and how many they are."""
    count = min(VALUES, tensor.numel())
    return zlib.crc32(name.encode()) % (tensor.numel() - count + 1), count


def _find(stored: StoredTensors, name: str, tensor: Tensor) -> str | None:
    """The name of the stored tensor that a loaded one is, or None; the own name is the only one where there is it."""
    tensors = stored.entries
    if name in tensors:
        return name if _same(stored, name, name, tensor) else None
    ending = name.rpartition(".")[2]
    shape = list(tensor.shape)
    names = [other for other in tensors if other.rpartition(".")[2] == ending and tensors[other]["shape"] == shape]
    names.sort(key=lambda other: -_common_ending(name, other))
    return next((other for other in names if _same(stored, name, other, tensor)), None)


def _same(stored: StoredTensors, name: str, other: str, tensor: Tensor) -> bool:
    """Whether a loaded tensor has the shape, the kind of numbers and the values of a stored one."""
    if stored.entries[other]["shape"] != list(tensor.shape):
        return False
    if tensor.device.type == "meta" or not tensor.numel():
        return True  # offloaded to disk, or empty
    start, count = _place(name, tensor)
    kept, loaded = stored.values(other, start, count), tensor.detach().flatten()[start : start + count].to("cpu")
    if kept.is_floating_point() != loaded.is_floating_point():
        return False
    if kept.dtype == loaded.dtype and torch.equal(kept, loaded):
        return True
    tolerance = torch.finfo(loaded.dtype).eps if kept.dtype != loaded.dtype and loaded.is_floating_point() else 0.0
    cast = kept.to(loaded.dtype)
    return torch.allclose(loaded.double(), cast.double(), rtol=tolerance, atol=0, equal_nan=True)


def _common_ending(name: str, other: str) -> int:
    """How many parts of two names are equal, counted from their ends."""
    count = 0
    for left, right in zip(reversed(name.split(".")), reversed(other.split(".")), strict=False):
        if left != right:
            break
        count += 1
    return count


def check_left_out(part: ComponentFolder, left: Set[str], used: Collection[str], kind: type) -> None:
    """Refuse a network that has only a part of its files' tensors.

    Stored networks of transformers may have more parts than the class that is loaded, such as a head; but a list of
    layers is loaded whole. Our networks and diffusers' have all tensors of their files.

    Args:
        part: The component's folder.
        left: The names of the tensors in the files that the network hasn't got.
        used: The names of those that it has.
        kind: The network's class.

    Raises:
        CheckpointError: If one of them belongs to the network.
    """
    if not left:
        return
    ignored = [re.compile(pattern) for pattern in getattr(kind, "_keys_to_ignore_on_load_unexpected", None) or ()]
    left = {name for name in left if not any(pattern.search(name) for pattern in ignored)}
    patterns = {re.sub(r"\d+", "#", name) for name in used}
    own_names = _has_own_names(part, kind)
    lost = sorted(name for name in left if own_names or re.sub(r"\d+", "#", name) in patterns)
    if lost:
        raise CheckpointError(
            f"{part.path}: the weights have {len(lost)} tensors more than the configuration says "
            f"({', '.join(lost[:5])}); fetch or save the model again"
        )


def _kind(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def _stored_kind(entry: TensorEntry) -> str:
    return f"{entry['dtype']} {tuple(entry['shape'])}"
