"""The file of an adapter: its tensors, and what it says of itself, of which peft makes expressions."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from safetensors import safe_open
from torch import Tensor

from latentdiff.errors import CheckpointError
from latentdiff.hub.json_files import parse_object
from latentdiff.io.tensor_files import SafetensorsFile
from latentdiff.types import JSON

METADATA = "lora_adapter_metadata"  # diffusers' name for peft's configuration, in the header of the file

# peft matches the names of layers with expressions that it makes of these; a plain name stands for itself.
PLAIN = re.compile(r"\^?[\w-]+(\.[\w-]+)*")
LONGEST_NAME = 500
LARGEST_SCALE = 1e30
MOST_TENSORS = 8  # of a layer: two of LoRA, and factors, scales and biases of its relatives

# Entries of peft's configuration that say where an adapter comes from, and change nothing of it.
DESCRIBING = ("auto_mapping", "base_model_name_or_path", "inference_mode", "peft_version", "revision", "task_type")


def _is_name(value: object) -> bool:
    return isinstance(value, str) and len(value) <= LONGEST_NAME and PLAIN.fullmatch(value) is not None


def _are_names(value: object) -> bool:
    return _is_name(value) or (isinstance(value, list) and all(map(_is_name, value)))


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < LARGEST_SCALE


def _is_flag(value: object) -> bool:
    return isinstance(value, bool)


def _is_pattern(value: object) -> bool:
    """Whether it is an object of layers' names to numbers."""
    return isinstance(value, dict) and all(map(_is_name, value)) and all(map(_is_number, value.values()))


# The other entries that may be set, and which values are right.
ALLOWED: dict[str, Callable[[object], bool]] = {
    "alpha_pattern": _is_pattern,
    "bias": lambda value: value == "none",
    "fan_in_fan_out": _is_flag,
    "init_lora_weights": lambda value: isinstance(value, bool) or value == "gaussian",
    "lora_alpha": _is_number,
    "lora_bias": _is_flag,
    "lora_dropout": _is_number,
    "peft_type": lambda value: value == "LORA",
    "r": _is_number,
    "rank_pattern": _is_pattern,
    "target_modules": _are_names,
    "use_dora": _is_flag,
    "use_rslora": _is_flag,
}


def read_adapter(path: Path) -> tuple[dict[str, Tensor], JSON | None]:
    """Read an adapter's tensors, and what its file says of it, which `check_adapter` has yet to check.

    Raises:
        CheckpointError: If the file is missing or damaged, or holds values that are not finite.
    """
    if not path.is_file():
        raise CheckpointError(f"{path} is no file; give an adapter's folder or file")
    file = SafetensorsFile(path)
    tensors = {name: file.read(name) for name in file.keys()}  # noqa: SIM118
    with safe_open(path, framework="pt") as opened:
        text = (opened.metadata() or {}).get(METADATA)
    return tensors, parse_object(f"{path}: {METADATA}", text) if text else None


def check_adapter(name: str, tensors: Mapping[str, Tensor], metadata: JSON | None, layers: int) -> JSON | None:
    """Check the names and the configuration of an adapter, of which peft makes expressions and tensors.

    Args:
        name: What the user calls the adapter, for messages.
        tensors: Its tensors.
        metadata: Its configuration, whose entries start with the name of a component and a dot; None without.
        layers: The number of layers that could have one.

    Returns:
        The configuration without entries that change nothing.

    Raises:
        CheckpointError: If a name of a layer could be an expression, or an entry isn't allowed.
    """
    if len(tensors) > MOST_TENSORS * layers:
        raise CheckpointError(f"{name} has {len(tensors)} tensors, more than an adapter of this model could have")
    for tensor in tensors:
        if not _is_name(tensor):
            raise CheckpointError(f"{name} has a tensor {tensor!r}, no plain name of a layer; don't use the adapter")
    if any("dora_scale" in tensor for tensor in tensors):
        raise CheckpointError(f"{name} has scales of DoRA, which diffusers leaves out; merge it where it was made")
    if metadata is None or any(".lokr_" in tensor for tensor in tensors):
        return None  # a LoKr adapter says all by its tensors
    largest = max((side for tensor in tensors.values() for side in tensor.shape[:2]), default=0)
    return {
        entry: value
        for entry, value in metadata.items()
        if _changes_something(name, entry.partition(".")[2], value, largest)
    }


def _changes_something(name: str, entry: str, value: object, largest: int) -> bool:
    """Whether an entry of an adapter's configuration has to be kept; CheckpointError if it isn't allowed."""
    if entry in DESCRIBING or value in (None, [], {}):
        return False
    if entry not in ALLOWED:
        if value == _defaults().get(entry, False):
            return False
        raise CheckpointError(f"{name} has {entry} {_shown(value)}, which isn't supported; merge it where it was made")
    if not ALLOWED[entry](value):
        raise CheckpointError(f"{name} has {entry} {_shown(value)}, which isn't allowed; don't use the adapter")
    ranks = value.values() if entry == "rank_pattern" and isinstance(value, dict) else [value] if entry == "r" else []
    for rank in ranks:
        if type(rank) is not int or not 1 <= rank <= largest:
            raise CheckpointError(f"{name} has the rank {_shown(rank)}, but no such tensor; don't use the adapter")
    return True


def _defaults() -> JSON:
    from peft import LoraConfig  # it is optional, and takes a while to import

    return dict(vars(LoraConfig()))


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
