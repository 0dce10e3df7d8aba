"""What a component of a model's folder may be: its class, and the files that say how it is made."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from typing import Any

from diffusers import ModelMixin, SchedulerMixin
from torch import nn

from latentdiff.errors import CheckpointError, ConfigError
from latentdiff.hub.component_folder import TOKENIZER_CONFIG, ComponentFolder
from latentdiff.hub.confinement import check_config
from latentdiff.hub.index import LIBRARIES, IndexEntry
from latentdiff.hub.loaded import check_loaded

DOOR = "from_pretrained"
TOKENIZER_BASE = "PreTrainedTokenizerBase"

# What a component can be; a pipeline can't, since its folder would be read by other rules.
BASES = {
    "diffusers": ("ModelMixin", "SchedulerMixin"),
    "latentdiff": ("ModelMixin", "SchedulerMixin", "LayoutTokenizer"),
    "transformers": (
        TOKENIZER_BASE,  # the first, as the others take a second to import
        "PreTrainedModel",
        "FeatureExtractionMixin",
        "ImageProcessingMixin",
        "ProcessorMixin",
    ),
}

FIRST_STAGES = {
    "AutoencoderKL": "diffusers",
    "VQModel": "latentdiff",
    "FSQModel": "latentdiff",
    "ResidualVQModel": "latentdiff",
}
"""The classes of first stages that are loaded alone, and the libraries that have them."""

# Files beside the configuration that transformers reads of some components.
OTHER_CONFIGS = ("generation_config.json", "preprocessor_config.json", "processor_config.json")


def component_class(folder: Path, entry: IndexEntry) -> type[Any]:
    """The class that the index of a pipeline's folder names for a component.

    Raises:
        ConfigError: If the library has no component of that name.
    """
    library = importlib.import_module(entry.library)
    found = getattr(library, entry.class_name, None)
    bases = (getattr(library, base) for base in BASES[entry.library])
    if not isinstance(found, type) or not any(issubclass(found, base) for base in bases):
        raise ConfigError(
            f"{folder}: {entry.folder} is {entry.class_name!r}, no component of {entry.library}; "
            f"allowed: the models, schedulers and tokenizers of {', '.join(LIBRARIES)}"
        )
    if issubclass(found, nn.Module) and _own_door(found, entry.library):
        raise ConfigError(
            f"{folder}: {entry.folder} is a {entry.class_name}, which reads other files than its own; load it yourself "
            "and give it to from_pretrained"
        )
    return found


def _own_door(found: type[nn.Module], library: str) -> bool:
    """Whether a class of networks reads files in another way than its library's networks do."""
    base = importlib.import_module("transformers").PreTrainedModel if library == "transformers" else ModelMixin
    return inspect.getattr_static(found, DOOR) is not inspect.getattr_static(base, DOOR)


def is_tokenizer(found: type, entry: IndexEntry) -> bool:
    """Whether a component's class is a tokenizer of transformers, which is imported where the index names it."""
    if entry.library != "transformers":
        return False
    base: type = getattr(importlib.import_module(entry.library), TOKENIZER_BASE)
    return issubclass(found, base)


def check_component(part: ComponentFolder, entry: IndexEntry) -> None:
    """Check all of a component's files that can be checked before it is loaded.

    Args:
        part: The component's folder.
        entry: What the index says of it.

    Raises:
        CheckpointError: If a file is missing or damaged, or stands for something outside of the folder.
        ConfigError: If the index names a class that is no component.
    """
    found = component_class(part.path.parent, entry)
    for name in OTHER_CONFIGS:
        if name in part.names:
            check_config(part.path / name, part.read(name))
    if is_tokenizer(found, entry):
        from transformers import PreTrainedTokenizerFast

        from latentdiff.hub.tokenizer_files import check_tokenizer_files

        if not issubclass(found, PreTrainedTokenizerFast):
            raise ConfigError(
                f"{part.path} is a {entry.class_name}, which is no fast tokenizer; allowed: those of the package "
                "tokenizers, such as CLIPTokenizer"
            )
        check_tokenizer_files(part, found)
    elif TOKENIZER_CONFIG in part.names:  # a tokenizer of ours, for layouts
        check_config(part.path / TOKENIZER_CONFIG, part.read(TOKENIZER_CONFIG))
    elif issubclass(found, (nn.Module, SchedulerMixin)):
        if not part.config:
            raise CheckpointError(f"{part.path} has no configuration; fetch or save the model again")
        said = part.config.get("_class_name", entry.class_name)
        if issubclass(found, nn.Module) and said != entry.class_name:
            raise CheckpointError(
                f"{part.path} is of the class {entry.class_name!r} in the index and {said!r} in its configuration; "
                "change one of them"
            )
        if issubclass(found, nn.Module) and part.weights is None:
            raise CheckpointError(f"{part.path} has no weights; fetch or save the model again")


def check_loaded_component(part: ComponentFolder, entry: IndexEntry, component: object) -> None:
    """Check that a component is what its files say.

    Args:
        part: The component's folder.
        entry: What the index says of it.
        component: What was loaded.

    Raises:
        CheckpointError: If a tensor of a network or a token of a tokenizer is another one.
    """
    if isinstance(component, nn.Module):
        check_loaded(part, component)
    elif is_tokenizer(type(component), entry):
        from latentdiff.hub.tokenizer_files import check_tokenizer_loaded

        check_tokenizer_loaded(part, component)
