"""What a model's files may not do: lead out of its folder, stand for code or other weights, ask for endless memory.

transformers, diffusers and peft follow such entries of a folder to other folders and to the hub. No model whose weights
lie in its folder needs them, so they are refused by name, in whatever depth of a configuration they stand.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path

from latentdiff.errors import CheckpointError
from latentdiff.io.headers import DTYPE_NAMES
from latentdiff.types import JSON

# Entries of configurations that stand for something that isn't in the component's folder, and what that is.
WEIGHTS, CODE, PACKED = "other weights", "code", "weights that a package unpacks"
REFUSED_ENTRIES = {
    "transformers_weights": WEIGHTS,
    "base_model_name_or_path": WEIGHTS,
    "gguf_file": WEIGHTS,
    "backbone": WEIGHTS,
    "use_pretrained_backbone": WEIGHTS,
    "use_timm_backbone": WEIGHTS,
    "configuration_files": "another configuration",
    "auto_map": CODE,
    "custom_pipelines": CODE,
    "trust_remote_code": CODE,
    "fusion_config": CODE,
    "kernel_config": CODE,
    "use_kernels": CODE,
    "quantization_config": PACKED,
    "compression_config": PACKED,
}

# Names of attention that transformers has itself; it gets all others from the hub or from packages.
ATTENTION_KINDS = (None, "eager", "sdpa")
ATTENTION_ENTRY = re.compile(r"_?(attn|experts)_implementation(_internal)?")

UNBOUNDED_ENTRIES = ("lambda_min_clipped", "s_tmax")  # of schedulers
DTYPE_ENTRIES = ("dtype", "torch_dtype")

# Files of a component that libraries read in the place of its weights or class, and what they stand for.
REFUSED_FILES = {
    re.compile(r"(diffusers|latentdiff|transformers)\.py"): "code, for which diffusers looks before its own",
    re.compile(r"adapter_config\.json"): "an adapter, for which transformers looks for other weights",
    re.compile(r"shard-\d{5}-model-\d{5}-of-\d{5}\.safetensors"): "a training checkpoint, read in the weights' place",
}

# What libraries read of a component's folder; nobody follows a link under another name.
READ_SUFFIXES = (".json", ".safetensors", ".txt", ".model", ".jinja", ".tiktoken")

LARGEST_COUNT = 2**20  # of layers, labels, heads and the like; also of elements, where a component has no weights
COUNT_ENTRY = re.compile(r"^(num|n)_|layer|depth|head|label|group|stage|block|expert|level")
DEEPEST = 64


def check_link(root: Path, path: Path) -> None:
    """Refuse a path that links lead out of a model's folder.

    Args:
        root: The model's folder. Links of a folder in the hub's cache lead to blobs beside it, which belong to it.
        path: A path in it, or in a component's folder in it.

    Raises:
        CheckpointError: If the path lies elsewhere when all links are followed, or the links lead in a circle.
    """
    try:
        real = path.resolve()
        if any(real.is_relative_to(place) for place in _places(root.resolve())):
            return
    except (OSError, RuntimeError) as error:
        raise CheckpointError(f"{path} is a link that leads nowhere ({error}); fetch the model again") from None
    raise CheckpointError(f"{path} is a link that leads out of the model's folder; put a copy in its place")


def _places(root: Path) -> Iterator[Path]:
    """Where the files of a model's folder may lie: in it, and for a snapshot in the hub's cache, in the blobs."""
    yield root
    for parent in (root, *root.parents):
        if parent.parent.name == "snapshots":
            yield parent.parent.parent / "blobs"
            return


def check_files(root: Path, folder: Path, names: tuple[str, ...]) -> None:
    """Refuse a component's folder with a file that leads out of it, isn't one, or stands for something else.

    Args:
        root: The model's folder.
        folder: The component's folder.
        names: The names of what lies in it.

    Raises:
        CheckpointError: If there is such a file.
    """
    for name in names:
        path = folder / name
        if name.endswith(READ_SUFFIXES) or path.is_dir():
            if path.is_symlink():
                check_link(root, path)
            if path.exists() and not path.is_file() and not path.is_dir():
                raise CheckpointError(f"{path} is no file, and reading it may never end; fetch the model again")
        for pattern, meaning in REFUSED_FILES.items():
            if pattern.fullmatch(name):
                raise CheckpointError(f"{folder / name} stands for {meaning}; remove it, or don't use the model")


def check_config(path: Path, config: JSON, elements: int = 0) -> None:
    """Refuse a configuration that stands for something outside of its folder, or asks for endless memory.

    Args:
        path: The file, for messages.
        config: What it holds.
        elements: The number of elements of the component's weights: no number of the configuration of a network is
            larger, be it a size or a token.

    Raises:
        CheckpointError: If there is such an entry.
    """
    largest = max(elements, LARGEST_COUNT)
    for name, value in _entries(path, config):
        if name in REFUSED_ENTRIES and value not in (None, False, "", {}, []):
            raise CheckpointError(
                f"{path}: {name} stands for {REFUSED_ENTRIES[name]}, {_shown(value)}; take the entry out, or don't use "
                "the model"
            )
        if ATTENTION_ENTRY.fullmatch(name) and any(leaf not in ATTENTION_KINDS for leaf in _leaves(value)):
            raise CheckpointError(
                f"{path}: {name} is {_shown(value)}, which would be fetched; allowed: eager, sdpa; change it, or take "
                "the entry out"
            )
        if name in DTYPE_ENTRIES and any(leaf not in (None, "auto", *DTYPE_NAMES.values()) for leaf in _leaves(value)):
            raise CheckpointError(f"{path}: {name} is {_shown(value)}, no data type such as float16; change it")
        if isinstance(value, float) and not math.isfinite(value) and name not in UNBOUNDED_ENTRIES:
            raise CheckpointError(f"{path}: {name} is {value}, no finite number; fetch the model again")
        if isinstance(value, int):
            low, high = (0, LARGEST_COUNT) if COUNT_ENTRY.search(name) else (-largest, largest)
            if not low <= value <= high:
                raise CheckpointError(f"{path}: {name} is {_shown(value)}, which no model has; don't use the model")


def _entries(path: Path, value: object, name: str = "", depth: int = 0) -> Iterator[tuple[str, object]]:
    """All entries of a configuration, in whatever depth they stand; those of a list have the list's name."""
    if depth > DEEPEST:
        raise CheckpointError(f"{path} is nested deeper than {DEEPEST} levels; don't use the model")
    if isinstance(value, dict):
        for key, part in value.items():
            yield key, part
            yield from _entries(path, part, key, depth + 1)
    elif isinstance(value, list):
        for part in value:
            yield name, part
            yield from _entries(path, part, name, depth + 1)


def _leaves(value: object) -> Iterator[object]:
    """What stands at the ends of nested objects and lists, however deep these are."""
    left = [value]
    while left:
        part = left.pop()
        if isinstance(part, (dict, list)):
            left += part.values() if isinstance(part, dict) else part
        else:
            yield part


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
