"""A model's folder, opened once: what its index says, what lies in it, and which of that is loaded."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentdiff.errors import CheckpointError, ConfigError, InputError
from latentdiff.hub.component_folder import ComponentFolder, library_errors, list_names
from latentdiff.hub.confinement import check_link
from latentdiff.hub.find import find_model, shared_components
from latentdiff.hub.index import CARD, INDEX, Index, check_own_code, read_index
from latentdiff.hub.weight_files import check_variant
from latentdiff.registry import PIPELINES, nearest
from latentdiff.tasks import TASKS, task_of_pipeline

if TYPE_CHECKING:
    from torch import nn
    from typing_extensions import Unpack

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
        stamp: What told the folder, when it was opened, from one that has replaced it since.
    """

    name: str
    path: Path
    index: Index
    components: Mapping[str, ComponentFolder]
    variant: str | None
    stamp: tuple[int, ...] = ()

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
            name: "builtin:NAME", a folder with `model_index.json`, that of a training run, or a hub id ("owner/name").
            subfolder: Where in the model's folder or repository the pipeline lies.
            variant: The variant of the weights, such as "fp16"; components that haven't got it are loaded without.
            **hub: Options of `download.fetch`.

        Raises:
            CheckpointError: If the index or a component's folder is missing or damaged.
            ConfigError: If the name is unknown, or the model brings code of its own.
            HubError: If the hub doesn't know the model or revision, refuses the token or can't be reached.
            InputError: If the subfolder leads out of the model.
        """
        path, root = find_model(name, subfolder, variant, hub)
        stamp = _stamp(path)
        check_own_code(path, list_names(path))
        for file in (INDEX, CARD):
            check_link(root, path / file)
        index = read_index(path)
        shared = shared_components(path)
        parts = {
            part: ComponentFolder.open(shared.get(part, path / entry.folder), variant, shared.get(part, root))
            for part, entry in index.components.items()
        }
        return cls(str(name), path, index, parts, variant, stamp)

    def is_replaced(self) -> bool:
        """Whether the folder has been replaced since it was opened, as a save of a pipeline there does."""
        return _stamp(self.path) != self.stamp

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
            CheckpointError: If a component, a variant or a shard is missing, or a file stands for something outside of
                the folder.
            UnsafeCheckpointError: If a component has pickled weights only.
            ConfigError: If the index names a class that is no component.
        """
        from latentdiff.hub.components import check_component, component_class  # they need torch

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
        with library_errors(self.path):
            for name in taken.components:
                component_class(self.path, self.index.components[name])
            for name, part in loaded.components.items():
                check_component(part, self.index.components[name])
        return loaded

    def without(self, names: Collection[str]) -> ModelFolder:
        """The folder without the components of these names."""
        return replace(self, components={name: part for name, part in self.components.items() if name not in names})

    @property
    def available_variant(self) -> str | None:
        """The variant if a component has it, else None: diffusers refuses a variant that no component has."""
        return self.variant if any(part.variant for part in self.components.values()) else None

    def load_own(self, options: Mapping[str, Any], as_stored: Collection[str] = ()) -> dict[str, nn.Module]:
        """Load the networks of this package and of diffusers.

        Args:
            options: Those of `from_pretrained`, without components. Where there is more than `dtype`, such as
                `device_map`, diffusers loads all but what it can't: stock UNets as our class, and components that have
                another name here than in the index, or lie in another built-in model's folder.
            as_stored: The names of components that keep the data type in which they are stored.

        Raises:
            CheckpointError: If weights aren't those of their configuration.
        """
        from latentdiff.hub.networks import component_dtype, load_own, needs_own  # it needs torch

        alone = options.keys() <= {"dtype"}
        loaded = {}
        for name, part in self.components.items():
            entry = self.index.components[name]
            if alone or part.path.parent != self.path or needs_own(name, entry):
                dtype = None if name in as_stored else component_dtype(name, options.get("dtype"))
                loaded[name] = load_own(part, entry, dtype)
        return {name: component for name, component in loaded.items() if component is not None}

    def load_small(self) -> dict[str, object] | None:
        """Load the components, such as a scheduler and a tokenizer, if none of them is a network; None else."""
        from torch import nn

        from latentdiff.hub.components import component_class

        found = {name: component_class(self.path, self.index.components[name]) for name in self.components}
        if any(issubclass(kind, nn.Module) for kind in found.values()):
            return None
        return {name: kind.from_pretrained(self.components[name].path) for name, kind in found.items()}

    def check_loaded(self, components: Mapping[str, object]) -> None:
        """Check that the components of a pipeline are what the files of this folder hold.

        Raises:
            CheckpointError: If a tensor of a network or a token of a tokenizer is another one.
        """
        from latentdiff.hub.components import check_loaded_component  # it needs torch

        for name, part in self.components.items():
            check_loaded_component(part, self.index.components[name], components.get(name))


def _stamp(path: Path) -> tuple[int, ...]:
    """What tells a folder from the next one at its path: numbers of files alone are given again."""
    try:
        found = path.stat()
    except OSError:  # it is being replaced just now
        return ()
    return (found.st_dev, found.st_ino, found.st_mtime_ns)


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
