"""The folder of one component: its files, its configuration, and what its weights are."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from latentdiff.errors import CheckpointError, ConfigError, LatentDiffError, one_line
from latentdiff.hub import weight_files
from latentdiff.hub.confinement import check_config, check_files, check_link
from latentdiff.hub.json_files import read_json
from latentdiff.io.headers import DTYPE_NAMES, TensorEntry, read_header
from latentdiff.types import JSON

TOKENIZER = "tokenizer.json"
TEMPLATES = "additional_chat_templates"
TOKENIZER_CONFIG = "tokenizer_config.json"
CONFIG_FILES = ("config.json", "scheduler_config.json", TOKENIZER_CONFIG)

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
    _read: dict[str, JSON] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def open(cls, path: Path, variant: str | None = None, root: Path | None = None) -> ComponentFolder:
        """List a component's folder.

        Args:
            path: The folder.
            variant: The variant of the weights that is asked for.
            root: The folder of the model that the component belongs to; the component's own if None. Links in it must
                not lead out of the model's folder.

        Raises:
            CheckpointError: If there is no such folder, or it can't be listed, or a file of it leads elsewhere.
        """
        root = root or path
        if not path.is_dir():
            raise CheckpointError(f"{path.parent} lacks the component {path.name!r}; fetch or save the model again")
        check_link(root, path)
        names = list_names(path)
        check_files(root, path, names)
        if TEMPLATES in names:  # of chats, which transformers reads with a tokenizer
            check_files(root, path / TEMPLATES, list_names(path / TEMPLATES))
        return cls(path, names, variant)

    def of_variant(self, variant: str | None) -> ComponentFolder:
        """The same folder with another variant of the weights."""
        return ComponentFolder(self.path, self.names, variant)

    def read(self, name: str) -> JSON:
        """The object in one of the folder's JSON files, which is read once.

        Raises:
            CheckpointError: If the file is missing or damaged.
        """
        if name not in self._read:
            self._read[name] = read_json(self.path / name, strict=name != TOKENIZER)
        return self._read[name]

    @property
    def variants(self) -> list[str]:
        """The variants that the component has, sorted."""
        return weight_files.variants(self.names)

    @property
    def variant(self) -> str | None:
        """The variant of the weights that are loaded, which is the requested one if the component has it."""
        return self.requested_variant if self.requested_variant in self.variants else None

    @cached_property
    def weights(self) -> str | None:
        """The name of the file that is loaded: safetensors, or a table of shards; None if there is none.

        Raises:
            CheckpointError: If there are several, of which libraries take one or another, or shards without a table.
        """
        names = weight_files.weights(self.names, self.requested_variant)
        whole = [name for name in names if not weight_files.is_shard(name)]
        if len(whole) > 1:
            raise CheckpointError(
                f"{self.path} has {' and '.join(whole)}, which may differ; remove all but the one to load"
            )
        if names and not whole:
            raise CheckpointError(f"{self.path} has {names[0]}, but no table of its shards; fetch the model again")
        return whole[0] if whole else None

    @cached_property
    def shards(self) -> dict[str, str]:
        """Names of the tensors to the names of their files, from the table of shards; empty where there is none.

        Raises:
            CheckpointError: If the table is damaged, or names a file that is missing or lies elsewhere.
        """
        if self.weights is None or not self.weights.endswith(".json"):
            return {}
        path = self.path / self.weights
        table = self.read(self.weights)
        shards = table.get("weight_map")
        if not isinstance(shards, dict) or not shards or not isinstance(table.get("metadata", {}), dict):
            raise CheckpointError(f"{path} has no weight_map of names to files; fetch or save the model again")
        for shard in shards.values():
            if not isinstance(shard, str) or not is_plain(shard) or not shard.endswith(".safetensors"):
                raise CheckpointError(
                    f"{path} names {shard!r}, outside its folder or no safetensors; don't use the model"
                )
            if shard not in self.names:
                raise CheckpointError(f"{self.path} lacks {shard}; fetch or save the model again")
        return shards

    @property
    def weight_paths(self) -> list[Path]:
        """The safetensors files that are loaded."""
        if self.shards:
            return [self.path / name for name in sorted(set(self.shards.values()))]
        return [] if self.weights is None else [self.path / self.weights]

    @cached_property
    def headers(self) -> dict[Path, dict[str, TensorEntry]]:
        """The files that are loaded, to their tensors' names and what the files' headers say of these.

        Raises:
            CheckpointError: If a header is damaged, or isn't what the table of shards says.
        """
        headers = {path: read_header(path) for path in self.weight_paths}
        for path, header in headers.items():
            told = {name for name, shard in self.shards.items() if shard == path.name} or header.keys()
            if told != header.keys():
                name = min(told ^ header.keys())
                raise CheckpointError(
                    f"{self.path / str(self.weights)} and {path.name} differ about the tensor {name!r}; fetch or save "
                    "the model again"
                )
        return headers

    @cached_property
    def tensors(self) -> dict[str, TensorEntry]:
        """Names of the tensors that are loaded, to what the headers of their files say of them.

        Raises:
            CheckpointError: If a header is damaged, or isn't what the table of shards says.
        """
        return {name: entry for header in self.headers.values() for name, entry in header.items()}

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
            CheckpointError: If the file is damaged, or stands for something outside of the folder.
        """
        found = self._config_file
        if found is None:
            return {}
        values = self.read(found)
        if found != TOKENIZER_CONFIG:
            check_config(self.path / found, values, self.parameters)
        return values

    @property
    def class_name(self) -> str | None:
        """The class of diffusers or this package that the configuration names; weights aren't looked at for it.

        Raises:
            CheckpointError: If the file is damaged, or no name stands there.
        """
        name = self.read(self._config_file).get("_class_name") if self._config_file else None
        if not isinstance(name, str | None):
            raise CheckpointError(f"{self.path}: _class_name is no name; fetch or save the model again")
        return name

    @property
    def _config_file(self) -> str | None:
        return next((name for name in CONFIG_FILES if name in self.names), None)

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


def list_names(folder: Path) -> tuple[str, ...]:
    """The names of what lies in a folder of a model, sorted.

    Raises:
        CheckpointError: If the folder can't be listed.
    """
    try:
        return tuple(sorted(os.listdir(folder)))
    except OSError as error:
        raise CheckpointError(f"{folder} cannot be listed ({error.strerror}); check its permissions") from None


def is_plain(name: str) -> bool:
    """Whether a name is that of a file in a folder itself, on every system."""
    return bool(name) and name not in (".", "..") and not any(character in name for character in "/\\:\0")


@contextmanager
def library_errors(folder: Path) -> Iterator[None]:
    """Turn what libraries raise about the broken files of a folder into one line.

    Raises:
        CheckpointError: In place of their errors, of which any kind can come of what a file says.
        ConfigError: If a configuration isn't valid.
    """
    try:
        yield
    except ConfigError as error:
        if str(folder) in str(error):
            raise
        raise ConfigError(f"{folder}: {error}") from None
    except LatentDiffError:
        raise
    except (MemoryError, OverflowError) as error:
        raise CheckpointError(f"{folder} takes more memory than there is ({one_line(error)}); free some") from None
    except Exception as error:
        raise CheckpointError(f"{folder} cannot be loaded ({one_line(error)}); fetch or save the model again") from None
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # how the package tokenizers fails, which is written in Rust
            raise
        raise CheckpointError(f"{folder} cannot be loaded ({one_line(error)}); fetch or save the model again") from None
