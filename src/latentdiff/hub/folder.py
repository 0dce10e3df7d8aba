"""A model's folder, opened once: what its index says, what lies in it, and which of that is loaded."""

from __future__ import annotations

import importlib.resources
import inspect
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from latentdiff.errors import CheckpointError, ConfigError, InputError, LatentDiffError, one_line
from latentdiff.hub.component_folder import ComponentFolder, list_names
from latentdiff.hub.index import INDEX, Index, check_own_code, is_inside, read_index
from latentdiff.hub.weight_files import check_variant
from latentdiff.registry import PIPELINES, nearest
from latentdiff.tasks import TASKS, task_of_pipeline

if TYPE_CHECKING:
    from torch import nn
    from typing_extensions import Unpack

    from latentdiff.hub.components import DTypes
    from latentdiff.hub.download import HubOptions

# Options of diffusers that run code from a model.
REFUSED_OPTIONS = ("custom_pipeline", "custom_revision", "trust_remote_code")


@dataclass(frozen=True)
class ModelFolder:
    """A pipeline's folder on this machine. Each folder in it is listed once, each header of weights read once.

    Attributes:
        name: What the user calls the model: "builtin:NAME", a folder, or a hub id.
        path: The folder.
        index: What its `model_index.json` says.
        components: The folders of the components, by the names that components have in this package.
        variant: The variant of the weights that was asked for, such as "fp16".
    """

    name: str
    path: Path
    index: Index
    components: Mapping[str, ComponentFolder]
    variant: str | None

    @classmethod
    def open(
        cls,
        name: str | Path,
        *,
        subfolder: str | None = None,
        variant: str | None = None,
        **hub: Unpack[HubOptions],
    ) -> ModelFolder:
        """Find a model, download it if it is on the hub, and list its folders.

        Args:
            name: "builtin:NAME", a folder with `model_index.json`, or a hub id ("owner/name").
            subfolder: Where in the model's folder or repository the pipeline lies.
            variant: The variant of the weights, such as "fp16"; components that haven't got it are loaded without.
            **hub: Options of `download.fetch`.

        Raises:
            CheckpointError: If the index or a component's folder is missing or damaged.
            ConfigError: If the name is unknown, or the model brings code of its own.
            HubError: If the hub doesn't know the model or revision, refuses the token or can't be reached.
            InputError: If the subfolder leads out of the model.
        """
        path = _find(name, subfolder, variant, hub)
        check_own_code(path, list_names(path))
        index = read_index(path)
        parts = {part: ComponentFolder.open(path / entry.folder, variant) for part, entry in index.components.items()}
        return cls(str(name), path, index, parts, variant)

    def pipeline_class(self, asked: type[Any]) -> type[Any]:
        """The class of the pipeline: `asked` itself if it is a task's, else the one that the index names.

        Raises:
            ConfigError: If the index names a class that is no task's.
        """
        if asked.__name__ != "DiffusionPipeline":
            return asked
        class_name = self.index.class_name
        spec = task_of_pipeline(class_name)
        registered = {PIPELINES.get(task).__name__: task for task in PIPELINES.names()}
        task = registered.get(class_name, spec.name if spec else None)
        if task is None:
            known = [*registered, *(stock for spec in TASKS.values() for stock in spec.stock_pipelines)]
            raise ConfigError(f"{self.path} is of the pipeline class {class_name!r}; {nearest(class_name, known)}")
        return PIPELINES.get(task)

    def check(self, pipeline_class: type[Any], given: Collection[str] = ()) -> ModelFolder:
        """Check all that can be checked before weights are read, and leave out what is not loaded from this folder.

        Args:
            pipeline_class: What is loaded; components that it doesn't take are left out, such as the feature extractor
                of Stable Diffusion.
            given: The names of components that the caller has already.

        Returns:
            The folder with only the components that are loaded from it.

        Raises:
            CheckpointError: If a component, a variant or a shard is missing.
            UnsafeCheckpointError: If a component has pickled weights only.
            ConfigError: If the index names a class that is no component.
        """
        from latentdiff.hub.components import component_class  # it needs torch

        parameters = inspect.signature(pipeline_class).parameters
        needed = {name for name, parameter in parameters.items() if parameter.default is parameter.empty}
        lacking = sorted(needed - {*self.components, *given, *pipeline_class._optional_components})
        if lacking:
            raise CheckpointError(
                f"{self.path} has no {' and no '.join(lacking)}, which {pipeline_class.__name__} needs; "
                f"give it: from_pretrained(..., {lacking[0]}=...)"
            )
        taken = self.without(self.components.keys() - parameters.keys())
        loaded = taken.without(given)
        check_variant(self.path, {name: part.names for name, part in loaded.components.items()}, self.variant)
        for part in loaded.components.values():
            part.check_shards()
        with library_errors(self.path):
            for name in taken.components:
                component_class(self.path, self.index.components[name])
        return loaded

    def without(self, names: Collection[str]) -> ModelFolder:
        """The folder without the components of these names."""
        return replace(self, components={name: part for name, part in self.components.items() if name not in names})

    @property
    def available_variant(self) -> str | None:
        """The variant if a component has it, else None: diffusers refuses a variant that no component has."""
        return self.variant if any(part.variant for part in self.components.values()) else None

    def load_own(self, dtype: DTypes = None) -> dict[str, nn.Module]:
        """Load what is loaded here and not by diffusers.

        Args:
            dtype: The data type of the weights, or one for each component's name and "default"; None for the default
                of the libraries.

        Returns:
            Stock UNets, as our class, and components that have another name here than in the index.

        Raises:
            CheckpointError: If the weights lack a tensor.
        """
        from latentdiff.hub.components import load_own  # it needs torch

        loaded = {
            name: load_own(name, part, self.index.components[name], dtype) for name, part in self.components.items()
        }
        return {name: component for name, component in loaded.items() if component is not None}

    def check_loaded(self, components: Mapping[str, object]) -> None:
        """Check that the networks among the components of a pipeline got all their tensors from this folder.

        Raises:
            CheckpointError: If the weights of one lack a tensor.
        """
        import torch

        for name, part in self.components.items():
            network = components.get(name)
            if part.weight_paths and isinstance(network, torch.nn.Module):
                part.check_loaded(network)


def check_load_options(options: Mapping[str, object]) -> None:
    """Check the options of `from_pretrained` that are diffusers'.

    Raises:
        InputError: If one would run a model's code or read pickled weights.
    """
    for name in REFUSED_OPTIONS:
        if name in options:
            raise InputError(f"from_pretrained takes no {name}: no code of a model is run; leave it out")
    if options.get("use_safetensors", True) not in (True, None):
        raise InputError("use_safetensors is False; pickled weights are never loaded, leave it out")


@contextmanager
def library_errors(folder: Path) -> Iterator[None]:
    """Turn what libraries raise about the broken files of a folder into one line.

    Raises:
        CheckpointError: In place of their errors.
        InputError: In place of a TypeError, which is about the options of `from_pretrained`.
    """
    try:
        yield
    except LatentDiffError:
        raise
    except TypeError as error:
        raise InputError(f"from_pretrained: {one_line(error)}") from None
    except (OSError, ValueError, LookupError, RuntimeError, SafetensorError, AttributeError) as error:
        raise CheckpointError(f"{folder} cannot be loaded ({one_line(error)}); fetch or save the model again") from None


def builtin_models() -> dict[str, Path]:
    """The models that ship inside the package: "builtin:NAME" to their folders."""
    package = Path(str(importlib.resources.files("latentdiff")), "builtin")
    return {f"builtin:{path.name}": path for path in sorted(package.iterdir()) if (path / INDEX).is_file()}


def _builtin_folder(name: str) -> Path:
    models = builtin_models()
    if name not in models:
        raise ConfigError(f"unknown model {name!r}; {nearest(name, models)}")
    return models[name]


def _find(name: str | Path, subfolder: str | None, variant: str | None, hub: HubOptions) -> Path:
    """The folder of a model on this machine, which has an index; see `ModelFolder.open`."""
    if subfolder is not None and not is_inside(subfolder):
        raise InputError(f"subfolder is {subfolder!r}; it must be a path inside the model, such as 'small'")
    text = str(name)
    root = _builtin_folder(text) if text.startswith("builtin:") else Path(text)
    if root.is_dir():
        folder = root / (subfolder or "")
        if not (folder / INDEX).exists():
            raise CheckpointError(f"{folder} holds no {INDEX}; give the folder of a whole pipeline")
        return folder
    if root.is_file():
        raise CheckpointError(
            f"{text} is a file; give a model's folder, or make one of an original checkpoint with latentdiff convert"
        )
    if isinstance(name, Path) or text.count("/") != 1 or text.startswith((".", "/")):
        hint = nearest(text, builtin_models())
        raise ConfigError(f"unknown model {text!r}: no such folder, and no hub id of the form owner/name; {hint}")
    from latentdiff.hub.download import fetch  # the hub's client takes a while to import

    return fetch(text, subfolder=subfolder, variant=variant, **hub)
