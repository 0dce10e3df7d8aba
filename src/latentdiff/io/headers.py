"""Reading the headers of safetensors files, which need neither the tensors nor torch."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TypedDict

from latentdiff.errors import CheckpointError, one_line
from latentdiff.io.file_kinds import HEAD_BYTES, check_regular_file, refuse_other_formats

MAX_HEADER_BYTES = 100_000_000  # the limit that the format has
MAX_HEADER_TOKENS = 600_000  # enough for 60,000 tensors; parsed JSON may take fifty times the memory of its text

# The names that torch has for the format's data types, and the bytes of a number of each.
DTYPE_NAMES = {
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

ITEM_BYTES = {
    "F64": 8,
    "F32": 4,
    "F16": 2,
    "BF16": 2,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "I64": 8,
    "I32": 4,
    "I16": 2,
    "I8": 1,
    "U8": 1,
    "BOOL": 1,
}


class TensorEntry(TypedDict):
    """The entry of a tensor in a header: its data type, its shape, and where its data begins and ends."""

    dtype: str
    shape: list[int]
    data_offsets: list[int]


def read_header(path: Path) -> dict[str, TensorEntry]:
    """The names of a file's tensors, with what the header says of them.

    A file is 8 bytes with the length of the header, the header in JSON, and the data.

    Raises:
        CheckpointError: If the header is damaged, has a tensor twice, or does not describe the file's data to the byte.
    """
    check_regular_file(path)
    try:
        size = path.stat().st_size
        with open(path, "rb") as file:
            head = file.read(HEAD_BYTES)
            if head[8:9] != b"{":
                refuse_other_formats(path, head)
            file.seek(8)
            length = int.from_bytes(head[:8], "little")
            if size < 8 or length > min(MAX_HEADER_BYTES, size - 8):
                raise ValueError("the header is longer than the file")
            text = file.read(length)
        if sum(map(text.count, (b"{", b"[", b","))) > MAX_HEADER_TOKENS:
            raise ValueError("the header is larger than that of any model")
        header = json.loads(text, object_pairs_hook=_unique)
        metadata = header.pop("__metadata__", {})
        if not all(isinstance(value, str) for value in metadata.values()):
            raise ValueError("its metadata is not text")
        _check_entries(header, size - 8 - length)
    except CheckpointError:  # which is an OSError, too
        raise
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror}); fetch or save the model again") from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged ({one_line(error)}); fetch or save the model again") from None
    tensors: dict[str, TensorEntry] = header
    return tensors


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """A JSON object; ValueError if it has a name twice."""
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError("a name stands twice in the header")
    return values


def _check_entries(header: dict[str, TensorEntry], data_bytes: int) -> None:
    """ValueError unless the tensors fill the data without overlap or gap, and each is as long as its shape says."""
    spans = []
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        if not all(type(number) is int and number >= 0 for number in (begin, end, *entry["shape"])):
            raise ValueError(f"{name} has a shape or an offset that is not a natural number")
        if entry["dtype"] not in DTYPE_NAMES:
            raise ValueError(f"{name} has the unknown dtype {entry['dtype']!r}")
        if math.prod(entry["shape"]) * ITEM_BYTES[entry["dtype"]] != end - begin:
            raise ValueError(f"the data of {name} is not as long as its shape says")
        spans.append((begin, end))
    place = 0
    for begin, end in sorted(spans):
        if begin != place:
            raise ValueError("tensors overlap or leave a gap")
        place = end
    if place != data_bytes:
        raise ValueError(f"the tensors have {place} bytes, the file {data_bytes}")
