"""What a safetensors file holds, from its header alone: no tensor is read, and torch isn't needed."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

from latentdiff.errors import CheckpointError

MAX_HEADER_BYTES = 100_000_000  # the format's own limit
MAX_HEADER_TOKENS = 600_000  # 60,000 tensors; parsed JSON may take fifty times the memory of its text

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

ITEM_BYTES = {code: int(re.sub(r"\D", "", code.split("_")[0]) or 8) // 8 for code in DTYPES}


def read_header(path: Path) -> dict[str, dict[str, Any]]:
    """Tensor names to their `dtype`, `shape` and `data_offsets`: 8 bytes of length, then that much JSON, then data.

    Raises:
        CheckpointError: If the header is damaged, names a tensor twice, or does not describe the file's data to the
            byte.
    """
    try:
        size = path.stat().st_size
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
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
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror}); fetch or save the model again") from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged ({_line(error)}); fetch or save the model again") from None
    tensors: dict[str, dict[str, Any]] = header
    return tensors


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError("a name stands twice in the header")
    return values


def _check_entries(header: dict[str, dict[str, Any]], data_bytes: int) -> None:
    """ValueError unless the tensors fill the data exactly: no overlap, no gap, each as long as its shape says."""
    spans = []
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        if not all(type(number) is int and number >= 0 for number in (begin, end, *entry["shape"])):
            raise ValueError(f"{name} has a shape or place that is no natural number")
        if entry["dtype"] not in DTYPES:
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


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
