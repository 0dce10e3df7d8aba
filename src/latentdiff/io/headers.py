"""What a safetensors file holds, from its header alone: no tensor is read, and torch isn't needed."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latentdiff.errors import CheckpointError

MAX_HEADER_BYTES = 100_000_000  # the format's own limit

DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}


@dataclass(frozen=True)
class Weights:
    """A summary of weight files.

    Attributes:
        parameters: Elements of all tensors.
        dtypes: Names of their dtypes, as torch has them.
    """

    parameters: int
    dtypes: frozenset[str]


def read_weights(paths: list[Path]) -> Weights:
    """The summary of one model's files, one or several shards.

    Raises:
        CheckpointError: If a header is damaged or does not fit the file.
    """
    tensors = [entry for path in paths for entry in read_header(path).values()]
    parameters = sum(math.prod(entry["shape"]) for entry in tensors)
    return Weights(parameters, frozenset(DTYPES.get(entry["dtype"], entry["dtype"]) for entry in tensors))


def read_header(path: Path) -> dict[str, dict[str, Any]]:
    """Tensor names to their `dtype`, `shape` and `data_offsets`: 8 bytes of length, then that much JSON, then data.

    Raises:
        CheckpointError: If the header is damaged or names data beyond the file's end.
    """
    try:
        size = path.stat().st_size
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(MAX_HEADER_BYTES, size - 8):
                raise ValueError("the header is longer than the file")
            header = json.loads(file.read(length))
        tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
        for name, entry in tensors.items():
            _check_entry(name, entry, size - 8 - length)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror}); fetch or save the model again") from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged ({error}); fetch or save the model again") from None
    return tensors


def _check_entry(name: str, entry: dict[str, Any], data_bytes: int) -> None:
    begin, end = entry["data_offsets"]
    if not all(type(number) is int and number >= 0 for number in (begin, end, *entry["shape"])):
        raise ValueError(f"{name} has a shape or place that is no natural number")
    if not begin <= end <= data_bytes or not isinstance(entry["dtype"], str):
        raise ValueError(f"the data of {name} lies beyond the end of the file")
