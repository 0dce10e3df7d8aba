"""Reading PyTorch's pickled checkpoints without running code that they bring.

A file is scanned first. It may name only what tensors are made of, and a few classes in old Lightning files, which are
replaced by stubs that do nothing. Then torch's weights_only reader builds the tensors. Tensors of a zip file have no
data, which is read when it is needed, from the place that the archive's directory says. (`torch.load` with device
"meta" computes the places from the way in which torch writes archives, which is wrong if another program has rewritten
the archive.)
"""

from __future__ import annotations

import pickle
import pickletools
import struct
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import torch

from latentdiff.compat import meta_storage, read_tensor_pickle
from latentdiff.errors import CheckpointError, UnsafeCheckpointError, one_line
from latentdiff.io.pickle_work import Work

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

STUB_NAMES = {
    "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",
    "pytorch_lightning.callbacks.early_stopping.EarlyStopping",
    "pytorch_lightning.callbacks.lr_monitor.LearningRateMonitor",
    "pytorch_lightning.callbacks.base.Callback",
    "pytorch_lightning.utilities.parsing.AttributeDict",
    "main.SetupCallback",
    "main.ImageLogger",
    "main.CUDACallback",
    "omegaconf.dictconfig.DictConfig",
    "omegaconf.listconfig.ListConfig",
    "numpy.dtype",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
}
"""The classes of what Lightning stored beside the weights in 2022, none of which is needed."""

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
DAMAGE = (
    pickle.UnpicklingError, RuntimeError, ValueError, TypeError, KeyError, IndexError, AttributeError, EOFError,
    AssertionError, OverflowError, MemoryError, UnicodeDecodeError, OSError, struct.error,
)  # fmt: skip
"""What torch's reader and `zipfile` raise for damaged files."""

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

    def __setitem__(self, key: object, value: object) -> None:
        pass


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
    except (zipfile.BadZipFile, *DAMAGE, RecursionError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{path} is damaged or no checkpoint ({one_line(error)}); {FETCH}") from None
    _refuse(path, names)
    stubs: list[Any] = [(Stub, name) for name in sorted(names & STUB_NAMES)]
    try:
        with torch.serialization.safe_globals(stubs), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of old protocols, but what the pickle does has been checked
            return archive.load() if archive else torch.load(path, map_location="cpu", weights_only=True)
    except (*DAMAGE, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged ({one_line(error)}); {FETCH}") from None


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
    head = file.read(512)
    if head[257:262] == b"ustar":
        raise CheckpointError(f"{path} is a tar file of PyTorch before 0.1.10, which is not read; {FETCH}")
    if head.startswith(b"PK"):
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
    longest, work = 0, Work()
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
    refused = sorted(names - TENSOR_NAMES - STUB_NAMES - {ENCODE})
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
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        metadata = {
            key: value for key, value in content.items() if isinstance(key, str) and type(value) in (int, float, str)
        }
        content = content["state_dict"]
    if isinstance(content, Mapping) and not any(isinstance(value, torch.Tensor) for value in content.values()):
        content = _join_levels(content)
    if not isinstance(content, Mapping) or not content:
        raise CheckpointError(f"{path} holds no state dict; give a checkpoint of a model")
    return content, metadata


def _join_levels(content: Mapping[object, object]) -> dict[str, torch.Tensor]:
    """The tensors of the mappings in `content`, by their names of both levels."""
    return {
        f"{outer}.{inner}": tensor
        for outer, values in content.items()
        if isinstance(outer, str) and isinstance(values, Mapping)
        for inner, tensor in values.items()
        if isinstance(inner, str) and isinstance(tensor, torch.Tensor)
    }
