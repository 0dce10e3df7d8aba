"""The JSON files of a model's folder: objects of bounded size, in which each name stands once."""

from __future__ import annotations

import json
import stat
from collections import Counter
from pathlib import Path
from typing import TypeVar

from latentdiff.errors import CheckpointError, one_line
from latentdiff.io.file_kinds import HEAD_BYTES, what_is
from latentdiff.types import JSON

Value = TypeVar("Value")

LARGEST_JSON = 2**26  # bytes; the largest real ones are tables of shards and vocabularies


def read_json(path: Path, *, strict: bool = True) -> JSON:
    """Read a JSON object from a model's folder.

    Args:
        path: The file.
        strict: Whether to refuse what programs read differently: a name that stands twice in an object, and NaN. It
            doubles the time, which counts for a vocabulary of a hundred thousand tokens.

    Raises:
        CheckpointError: If the file is missing or damaged, or isn't an object.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("it is no file")
        if status.st_size > LARGEST_JSON:
            raise ValueError(f"it has {status.st_size} bytes, more than any such file of a model")
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError, MemoryError) as error:
        raise CheckpointError(f"{path} cannot be read ({one_line(error)}); fetch the model again") from None
    return parse_object(path, text, strict=strict)


def parse_object(source: object, text: str, *, strict: bool = True) -> JSON:
    """The JSON object that a text is.

    Args:
        source: Where it is from, for messages.
        text: The text.
        strict: See `read_json`.

    Raises:
        CheckpointError: If the text is damaged, or isn't an object.
    """
    try:
        values = json.loads(text, object_pairs_hook=_object, parse_constant=_constant) if strict else json.loads(text)
    except (ValueError, RecursionError, MemoryError) as error:
        what = None if text.lstrip().startswith(("{", "[")) else what_is(text[:HEAD_BYTES].encode(errors="replace"))
        reason = f"it is {what}" if what else one_line(error)
        raise CheckpointError(f"{source} cannot be read ({reason}); fetch the model again") from None
    if not isinstance(values, dict):
        raise CheckpointError(f"{source} holds no JSON object; fetch the model again")
    return values


def _object(pairs: list[tuple[str, Value]]) -> dict[str, Value]:
    values = dict(pairs)
    if len(values) < len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the name {twice[:50]!r} stands twice in an object")
    return values


def _constant(name: str) -> float:
    if name == "NaN":
        raise ValueError("a number of it is NaN")
    return float(name)  # the infinities are bounds of some schedulers
