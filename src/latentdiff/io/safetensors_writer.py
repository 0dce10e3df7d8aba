"""Writing safetensors files one tensor at a time, so that only one is in memory."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from latentdiff.io.headers import DTYPE_NAMES

DTYPE_CODES = {getattr(torch, name): code for code, name in DTYPE_NAMES.items()}

TensorLayout = Sequence[tuple[str, torch.dtype, Sequence[int]]]
"""The name, dtype and shape of each tensor in a file."""


def write_safetensors(
    path: Path,
    layout: TensorLayout,
    tensors: Iterable[tuple[str, Tensor]],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a file whose header is known before its data.

    Args:
        path: The file. Give a temporary name, since the file is incomplete until this returns.
        layout: The name, dtype and shape of every tensor.
        tensors: The names and tensors, in the same order.
        metadata: Free text for the header.

    Raises:
        ValueError: If a tensor is not the one that the layout says.
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt", **(metadata or {})}}
    end = 0
    for name, dtype, shape in layout:
        begin, end = end, end + math.prod(shape) * dtype.itemsize
        header[name] = {"dtype": DTYPE_CODES[dtype], "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the data starts at a multiple of 8 bytes
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for (name, dtype, shape), (given, tensor) in zip(layout, tensors, strict=True):
            if given != name or tensor.dtype != dtype or tuple(tensor.shape) != tuple(shape):
                raise ValueError(
                    f"{given} {tensor.dtype} {tuple(tensor.shape)} where {name} {dtype} {shape} was announced"
                )
            if tensor.numel():
                file.write(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
