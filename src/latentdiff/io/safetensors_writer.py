"""Writing safetensors one tensor at a time, so that memory holds only one."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from latentdiff.io.headers import DTYPES

CODES = {getattr(torch, name): code for code, name in DTYPES.items()}


def write_safetensors(
    path: Path,
    layout: Sequence[tuple[str, torch.dtype, Sequence[int]]],
    tensors: Iterable[tuple[str, Tensor]],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a file whose header is known before its data.

    Args:
        path: The file; write it aside, since it is not whole before this returns.
        layout: Name, dtype and shape of every tensor.
        tensors: The tensors, in that order.
        metadata: Free text for the header.
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt", **(metadata or {})}}
    end = 0
    for name, dtype, shape in layout:
        begin, end = end, end + math.prod(shape) * dtype.itemsize
        header[name] = {"dtype": CODES[dtype], "shape": list(shape), "data_offsets": [begin, end]}
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
