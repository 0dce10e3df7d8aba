"""The folder of one component: its files, its configuration, and what its weights are."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from latentdiff.errors import CheckpointError
from latentdiff.hub import weight_files
from latentdiff.hub.index import is_inside, read_json
from latentdiff.io.headers import DTYPE_NAMES, TensorEntry, read_header
from latentdiff.types import JSON

if TYPE_CHECKING:
    from torch import nn

CONFIG_FILES = ("config.json", "scheduler_config.json", "tokenizer_config.json")

# Names that diffusers gave the attention of its first UNets and autoencoders.
OLD_ATTENTION = re.compile(r"attentions\.\d+\.(query|key|value|proj_attn)\.")


@dataclass(frozen=True)
class ComponentFolder:
    """The folder of one component, which is listed once; each of its files is read at most once.

    Attributes:
        path: The folder.
        names: The names of what lies in it.
        requested_variant: The variant of the weights that was asked for, such as "fp16".
    """

    path: Path
    names: tuple[str, ...]
    requested_variant: str | None

    @classmethod
    def open(cls, path: Path, variant: str | None = None) -> ComponentFolder:
        """List a component's folder.

        Raises:
            CheckpointError: If there is no such folder, or it can't be listed.
        """
        if not path.is_dir():
            raise CheckpointError(f"{path.parent} lacks the component {path.name!r}; fetch or save the model again")
        return cls(path, list_names(path), variant)

    def of_variant(self, variant: str | None) -> ComponentFolder:
        """The same folder with another variant of the weights."""
        return ComponentFolder(self.path, self.names, variant)

    @property
    def variants(self) -> list[str]:
        """The variants that the component has, sorted."""
        return weight_files.variants(self.names)

    @property
    def variant(self) -> str | None:
        """The variant of the weights that are loaded, which is the requested one if the component has it."""
        return self.requested_variant if self.requested_variant in self.variants else None

    @cached_property
    def weights(self) -> list[str]:
        """The names of the weight files that are loaded: safetensors, and tables of shards."""
        return weight_files.weights(self.names, self.requested_variant)

    @property
    def weight_paths(self) -> list[Path]:
        """The safetensors files that are loaded."""
        return [self.path / name for name in self.weights if name.endswith(".safetensors")]

    @cached_property
    def tensors(self) -> dict[str, TensorEntry]:
        """Names of the tensors that are loaded, to what the headers of their files say of them.

        Raises:
            CheckpointError: If a header is damaged.
        """
        return {name: entry for path in self.weight_paths for name, entry in read_header(path).items()}

    @property
    def parameters(self) -> int:
        """The number of elements of all tensors that are loaded."""
        return sum(math.prod(entry["shape"]) for entry in self.tensors.values())

    @property
    def dtypes(self) -> set[str]:
        """The data types of the tensors that are loaded, by torch's names."""
        return {DTYPE_NAMES[entry["dtype"]] for entry in self.tensors.values()}

    @property
    def bytes_on_disk(self) -> int:
        """The size of all files in the folder, loaded or not."""
        paths = [self.path / name for name in self.names]
        return sum(path.stat().st_size for path in paths if path.is_file())

    @property
    def has_old_attention(self) -> bool:
        """Whether the attention layers bear the names of 2022, which diffusers still reads."""
        return any(OLD_ATTENTION.search(name) for name in self.tensors)

    @cached_property
    def config(self) -> JSON:
        """The configuration of the component; it is empty where the folder has none.

        Raises:
            CheckpointError: If the file is damaged.
        """
        found = next((name for name in CONFIG_FILES if name in self.names), None)
        return read_json(self.path / found) if found else {}

    def check_shards(self) -> None:
        """Check the tables of shards.

        Raises:
            CheckpointError: If a table is damaged, or names a file that is missing or lies elsewhere.
        """
        for name in self.weights:
            if not name.endswith(".json"):
                continue
            table = read_json(self.path / name).get("weight_map")
            if not isinstance(table, dict):
                raise CheckpointError(f"{self.path / name} has no weight_map; fetch or save the model again")
            for shard in sorted(set(map(str, table.values()))):
                if not is_inside(shard) or "/" in shard:
                    raise CheckpointError(
                        f"{self.path / name} names {shard!r}, outside its folder; don't use the model"
                    )
                if shard not in self.names:
                    raise CheckpointError(f"{self.path} lacks {shard}; fetch or save the model again")

    def check_tensors(self, needed: Collection[str]) -> None:
        """Check that the weights have all tensors of the names `needed`.

        Raises:
            CheckpointError: If they lack one; the message names the first five.
        """
        lacking = sorted(set(needed) - self.tensors.keys())
        if lacking:
            raise CheckpointError(
                f"{self.path} lacks {len(lacking)} tensors ({', '.join(lacking[:5])}); fetch or save the model again"
            )

    def check_loaded(self, network: nn.Module) -> None:
        """Check that a network got all its tensors from this folder: diffusers fills gaps with random numbers.

        The names of our own networks have to be in the files. Libraries may read a tensor under an older name, so of
        other networks the number of tensors counts.

        Raises:
            CheckpointError: If the weights lack a tensor.
        """
        needed = network.state_dict().keys()
        is_own = type(network).__module__.startswith("latentdiff.") and not self.has_old_attention
        if is_own or len(self.tensors) < len(needed):
            self.check_tensors(needed)


def list_names(folder: Path) -> tuple[str, ...]:
    """The names of what lies in a folder of a model, sorted.

    Raises:
        CheckpointError: If the folder can't be listed.
    """
    try:
        return tuple(sorted(os.listdir(folder)))
    except OSError as error:
        raise CheckpointError(f"{folder} cannot be listed ({error.strerror}); check its permissions") from None
