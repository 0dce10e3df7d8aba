"""Reading PyTorch's pickled checkpoints without running code that they bring.

A file is scanned first. It may name only what tensors are made of, and a few classes in old Lightning files, which are
replaced by stubs that do nothing. Then torch's weights_only reader builds the tensors. Tensors of a zip file have no
data, which is read when it is needed, from the place that the archive's directory says. (`torch.load` with device
"meta" computes the places from the way in which torch writes archives, which is wrong if another program has rewritten
the archive.)
"""

from __future__ import annotations

import pickletools
import struct
import warnings
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import torch

from latentdiff.compat import meta_storage, read_tensor_pickle
from latentdiff.errors import CheckpointError, UnsafeCheckpointError, one_line
from latentdiff.io.file_kinds import CHECKPOINT_SUFFIXES
from latentdiff.io.pickle_work import PickleWork

TENSOR_NAMES = {
    "collections.OrderedDict",
    "torch._utils._rebuild_tensor",
    "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_parameter",
    "torch.Size",
    "torch.device",
    "torch.nn.parameter.Parameter",
    "__builtin__.set",
    "builtins.set",
    *(
        f"torch.{name}Storage"
        for name in ("Double", "Float", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte")
    ),
    *("torch.BoolStorage", "torch.storage.UntypedStorage", "torch.storage._load_from_bytes_disabled"),
    *(str(dtype) for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32)),
}
"""The names that a file of tensors needs, and that torch's reader knows."""

STUB_MODULES = ("pytorch_lightning.", "lightning.", "lightning_fabric.", "omegaconf.", "main.", "ldm.", "taming.")
"""The beginnings of the names of classes that Lightning stored beside the weights, none of which is needed."""

STUB_NAMES = {
    "typing.Any",
    "argparse.Namespace",
    *(f"pathlib.{name}" for name in ("Path", "PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")),
    "numpy.dtype",
    "numpy.ndarray",
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
    *(
        f"{module}.{name}"
        for module in ("builtins", "__builtin__")
        for name in ("bool", "bytes", "complex", "float", "int", "list", "long", "object", "str", "tuple", "unicode")
    ),
}
"""Names of other classes in the hyper-parameters and the state of callbacks."""

RENAMED = {"long": "int", "unicode": "str"}
ENCODE = "_codecs.encode"  # a part of pickled numpy scalars, which torch's reader calls
MAX_ENCODED = 4096  # characters of a string to encode, since some codecs take quadratic time

OPERATIONS = {
    "PROTO", "STOP", "GLOBAL", "NEWOBJ", "REDUCE", "BUILD", "APPEND", "APPENDS", "SETITEM", "SETITEMS", "MARK",
    "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "NONE", "NEWFALSE", "NEWTRUE", "EMPTY_TUPLE", "EMPTY_LIST", "EMPTY_DICT",
    "EMPTY_SET", "BININT", "BININT1", "BININT2", "BINFLOAT", "BINUNICODE", "SHORT_BINSTRING", "BINPERSID", "BINGET",
    "LONG_BINGET", "BINPUT", "LONG_BINPUT", "LONG1",
}  # fmt: skip
"""The pickle operations that torch's reader understands; no checkpoint of tensors needs any other."""

MAX_PICKLE_BYTES = 64 * 2**20
ENCRYPTED = 1  # the bit of a zip record's flags
LOCAL_HEADER = struct.Struct("<4s22xHH")  # the signature, and the lengths of the name and of the extra field
LEGACY_PICKLES = 5  # the magic number, the protocol, the system, the content, and the keys of the storages
FETCH = "fetch it again, or ask its author for safetensors"
Metadata = Mapping[str, int | float | str]
"""The numbers and strings beside the tensors of a checkpoint, such as `global_step`."""


class Stub:
    """A class that takes any arguments and state, and keeps nothing."""

    def __new__(cls, *args: object, **kwargs: object) -> Stub:  # noqa: D102
        return super().__new__(cls)

    def __init__(self, *args: object, **kwargs: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


def new_dict(*args: object) -> dict[object, object]:
    """An empty dict, whatever a pickle would make one of."""
    return {}


# Stand-ins whose items a pickle sets, which torch's reader allows of a dict only.
DICT_STUBS: dict[str, object] = {
    "pytorch_lightning.utilities.parsing.AttributeDict": dict,
    "lightning_fabric.utilities.data.AttributeDict": dict,
    "lightning.fabric.utilities.data.AttributeDict": dict,
    "collections.defaultdict": new_dict,
    "__builtin__.dict": new_dict,
    "builtins.dict": new_dict,
}


def stand_in(name: str) -> object | None:
    """What stands in a file for the class of this name, which is not needed; None if nothing does."""
    if name in DICT_STUBS:
        return DICT_STUBS[name]
    return Stub if name in STUB_NAMES or name.startswith(STUB_MODULES) else None


def today(name: str) -> str:
    """What torch's reader makes of a name, which pickles have as Python 2 had it."""
    module, _, rest = name.rpartition(".")
    return f"builtins.{RENAMED.get(rest, rest)}" if module == "__builtin__" else name


def load_pickle(path: Path) -> object:
    """Read the content of a checkpoint; tensors of a zip file are on the meta device and know their place in the file.

    Raises:
        UnsafeCheckpointError: If the file names anything but what tensors need and the stubs stand for.
        CheckpointError: If it is damaged, or in a format that torch no longer reads.
    """
    archive = None
    try:
        with open(path, "rb") as file:
            if zipfile.is_zipfile(path):
                archive = _Archive(path, file)
                names = _names(path, pickletools.genops(archive.content))
            else:
                names = _scan_legacy(path, file)
    except CheckpointError:
        raise
    except Exception as error:  # of pickletools or zipfile, about anything that a file can hold
        raise CheckpointError(f"{path} is damaged or no checkpoint ({_reason(error)}); {FETCH}") from None
    _refuse(path, names)
    stubs: list[Any] = [(stub, today(name)) for name in sorted(names) if (stub := stand_in(name)) is not None]
    try:
        with torch.serialization.safe_globals(stubs), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of old protocols, but what the pickle does has been checked
            if archive:
                return archive.load()
            with open(path, "rb") as file:  # of a path, torch would believe the suffix
                return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # of torch's reader, which looks up codecs and calls what makes tensors
        raise CheckpointError(f"{path} is damaged ({_reason(error)}); {FETCH}") from None


def _reason(error: Exception) -> str:
    """The reason in a library's error, without torch's advice to read the file in another way."""
    text = one_line(error)
    return text.partition("WeightsUnpickler error: ")[2].partition(" Check the documentation")[0] or text


class _Archive:
    """A zip file of `torch.save`.

    Attributes:
        content: The pickle of the checkpoint.
        places: The first byte in the file and the length of each storage.

    Raises:
        UnsafeCheckpointError: If it is a TorchScript program.
        CheckpointError: If its records are not those that torch writes.
    """

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        size = path.stat().st_size
        self.places: dict[str, tuple[int, int]] = {}
        with zipfile.ZipFile(file) as archive:
            records = {record.filename: record for record in archive.infolist()}
            found = [name for name in records if name.rsplit("/", 1)[-1] == "data.pkl"]
            if not found:
                names = sorted(records, key=lambda name: (not name.endswith(CHECKPOINT_SUFFIXES), name))
                inside = names[0] if names else "nothing"
                raise CheckpointError(
                    f"{path} is a zip archive, not a checkpoint (it has {inside}); unpack it, and give what is in it"
                )
            if len(found) != 1 or len(records) != len(archive.infolist()):
                raise CheckpointError(
                    f"{path} is not a PyTorch checkpoint, which has one data.pkl and no name twice; {FETCH}"
                )
            root = found[0].removesuffix("data.pkl")
            for name, record in records.items():
                plain = record.compress_type == zipfile.ZIP_STORED and not record.flag_bits & ENCRYPTED
                if not plain or record.file_size > size:
                    raise CheckpointError(f"{path}: {name} is compressed or larger than the file; {FETCH}")
                if name.rsplit("/", 1)[-1] == "constants.pkl":
                    raise UnsafeCheckpointError(f"{path} is a TorchScript program; give a state dict")
                if name.startswith(f"{root}data/"):
                    self.places[name.removeprefix(f"{root}data/")] = (_start(file, record), record.file_size)
            if records[found[0]].file_size > MAX_PICKLE_BYTES:
                raise CheckpointError(
                    f"{path}: data.pkl has {records[found[0]].file_size} bytes; at most {MAX_PICKLE_BYTES} are read"
                )
            self.content = archive.read(found[0])
            order = f"{root}byteorder"
            if order in records and archive.read(order) != b"little":
                raise CheckpointError(f"{path} was written by a big-endian machine, which is not read; {FETCH}")

    def load(self) -> Any:
        """Read the content, with tensors on the meta device whose storages know their place in the file."""
        return read_tensor_pickle(self.content, self._storage)

    def _storage(self, saved: Any) -> Any:
        """The storage that a pickle describes as ("storage", its class, the name of its record, device, elements)."""
        _, kind, key, _, count = saved
        dtype = torch.uint8 if kind is torch.UntypedStorage else kind.dtype
        start, size = self.places[key]
        if not 0 <= count * dtype.itemsize <= size:
            raise ValueError(f"data/{key} has {size} bytes, {count} x {dtype.itemsize} are asked for")
        return meta_storage(count, dtype, start)


def _start(file: IO[bytes], record: zipfile.ZipInfo) -> int:
    """The first byte of a record's data. It follows the record's own header, whose length the directory doesn't say."""
    file.seek(record.header_offset)
    header = file.read(LOCAL_HEADER.size)
    signature, name, extra = LOCAL_HEADER.unpack(header)
    if signature != b"PK\3\4":
        raise zipfile.BadZipFile(f"{record.filename} is not where the directory says")
    return int(record.header_offset + LOCAL_HEADER.size + name + extra)


def _scan_legacy(path: Path, file: IO[bytes]) -> set[str]:
    """The names in a file of torch before 1.6, which is several pickles and then the storages' bytes."""
    if file.read(2) == b"PK":
        raise CheckpointError(f"{path} is a damaged zip archive, perhaps cut off; {FETCH}")
    file.seek(0)
    names: set[str] = set()
    for _ in range(LEGACY_PICKLES):
        names |= _names(path, pickletools.genops(file))
    return names


def _names(path: Path, operations: Iterator[tuple[pickletools.OpcodeInfo, Any, int | None]]) -> set[str]:
    """The classes and functions that a pickle names; nothing of it is executed.

    Raises:
        UnsafeCheckpointError: If it has operations that no tensor needs.
        ValueError: If it makes more work than tensors do.
    """
    names: set[str] = set()
    strings: list[str] = []
    longest, work = 0, PickleWork()
    for operation, argument, _ in operations:
        if isinstance(argument, str) and operation.name not in ("GLOBAL", "INST"):
            strings = [*strings[-1:], argument]  # the last two, which STACK_GLOBAL joins
            longest = max(longest, len(argument))
        if operation.name in ("GLOBAL", "INST"):
            names.add(".".join(argument.split(" ", 1)))
        elif operation.name == "STACK_GLOBAL":
            names.add(".".join(strings))
        elif operation.name not in OPERATIONS:
            _refuse(path, names)
            raise UnsafeCheckpointError(f"{path} uses the pickle operation {operation.name}; {FETCH}")
        if operation.name in ("STACK_GLOBAL", "INST"):
            _refuse(path, names)
            raise UnsafeCheckpointError(f"{path} names {min(names)} in a way that PyTorch never does; {FETCH}")
        work.follow(operation, argument)
    work.check()
    if ENCODE in names and longest > MAX_ENCODED:
        raise UnsafeCheckpointError(f"{path} encodes strings of up to {longest} characters; {FETCH}")
    return names


def _refuse(path: Path, names: set[str]) -> None:
    """UnsafeCheckpointError if there are names that neither tensors need nor stubs stand for."""
    refused = sorted(name for name in names - TENSOR_NAMES - {ENCODE} if stand_in(name) is None)
    if refused:
        more = f" and {len(refused) - 5} more" if len(refused) > 5 else ""
        raise UnsafeCheckpointError(
            f"{path} would run code to be read: it names {', '.join(refused[:5])}{more}; {FETCH}"
        )


def find_state_dict(path: Path, content: object) -> tuple[Mapping[object, object], Metadata]:
    """The state dict in a checkpoint, and the numbers and strings beside it.

    If the checkpoint holds several, as the files of GANs do, their tensors have the names of both levels, joined by a
    dot.

    Raises:
        CheckpointError: If there is none.
    """
    metadata: Metadata = {}
    found = dict(items_of(content))
    if isinstance(found.get("state_dict"), Mapping):
        metadata = {
            key: value for key, value in found.items() if isinstance(key, str) and type(value) in (int, float, str)
        }
        found = dict(items_of(found["state_dict"]))
    if not any(isinstance(value, torch.Tensor) for value in found.values()):
        found = dict(_join_levels(found))
    if not found:
        raise CheckpointError(f"{path} holds no state dict; give a checkpoint of a model")
    return found, metadata


def items_of(content: object) -> Iterable[tuple[Any, Any]]:
    """The keys and values of a mapping, none for anything else.

    A dict from a file may have attributes in the place of its methods, so these are not looked up in it.
    """
    if isinstance(content, dict):
        return dict.items(content)
    return content.items() if isinstance(content, Mapping) else ()


def _join_levels(content: Mapping[object, object]) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors of the mappings in `content`, by their names of both levels."""
    for outer, values in content.items():
        for inner, tensor in items_of(values):
            if isinstance(outer, str) and isinstance(inner, str) and isinstance(tensor, torch.Tensor):
                yield f"{outer}.{inner}", tensor
