"""Finding a pipeline's folder and class, and saying plainly what is wrong with it."""

from __future__ import annotations

import importlib.resources
import inspect
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from latentdiff.errors import CheckpointError, ConfigError, InputError, LatentDiffError
from latentdiff.hub import weight_files
from latentdiff.hub.index import INDEX, Index, is_inside, one_line, read_index, read_json
from latentdiff.registry import PIPELINES, nearest
from latentdiff.tasks import TASKS, task_of_pipeline

__all__ = ["INDEX", "read_json"]

# Options of diffusers that run code from a model or read pickled weights.
REFUSED = ("custom_pipeline", "custom_revision", "trust_remote_code")


def builtin_models() -> list[str]:
    """Names of the models that ship inside the package."""
    root = importlib.resources.files("latentdiff") / "builtin"
    return sorted(entry.name for entry in root.iterdir() if (entry / INDEX).is_file()) if root.is_dir() else []


def find_folder(name: str | Path, *, subfolder: str | None = None, **hub: Any) -> Path:
    """The local folder of a model: built in, on disk, or downloaded with the options of `hub.fetch`."""
    if subfolder is not None and not is_inside(subfolder):
        raise InputError(f"subfolder is {subfolder!r}; it must be a path inside the model, such as 'small'")
    text = str(name)
    builtin = text.startswith("builtin:")
    if builtin and text.removeprefix("builtin:") not in builtin_models():
        raise ConfigError(f"unknown model {text!r}; {nearest(text, [f'builtin:{k}' for k in builtin_models()])}")
    root = Path(str(importlib.resources.files("latentdiff")), "builtin", text[8:]) if builtin else Path(text)
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
        known = [f"builtin:{k}" for k in builtin_models()]
        hint = nearest(text, known)
        raise ConfigError(f"unknown model {text!r}: no such folder, and no hub id of the form owner/name; {hint}")
    from latentdiff.hub.download import fetch  # the hub's client takes a while to import

    return fetch(text, subfolder=subfolder, **hub)


def check_load_options(options: Mapping[str, Any]) -> None:
    """Refuse options that would run a model's code or read pickled weights."""
    for name in REFUSED:
        if name in options:
            raise InputError(f"from_pretrained takes no {name}: no code of a model is run; leave it out")
    if options.get("use_safetensors", True) not in (True, None):
        raise InputError("use_safetensors is False; pickled weights are never loaded, leave it out")


def pipeline_class(cls: Any, folder: Path, index: Index) -> Any:
    """`cls` itself if it is a task's pipeline, else the one that the folder's index names."""
    if cls.__name__ != "DiffusionPipeline":
        return cls
    spec = task_of_pipeline(index.class_name)
    registered = {PIPELINES.get(task).__name__: task for task in PIPELINES.names()}
    task = registered.get(index.class_name, spec.name if spec else None)
    if task is None:
        known = [*registered, *(stock for spec in TASKS.values() for stock in spec.stock_pipelines)]
        raise ConfigError(f"{folder} is of the pipeline class {index.class_name!r}; {nearest(index.class_name, known)}")
    return PIPELINES.get(task)


def check_whole(folder: Path, index: Index, cls: Any, given: Collection[str]) -> None:
    """CheckpointError if the index lacks a component that the pipeline `cls` needs and that isn't given."""
    parameters = list(inspect.signature(cls.__init__).parameters.values())[1:]
    needed = {parameter.name for parameter in parameters if parameter.default is parameter.empty}
    lacking = sorted(needed - {*index.components, *given, *cls._optional_components})
    if lacking:
        raise CheckpointError(
            f"{folder} has no {' and no '.join(lacking)}, which {cls.__name__} needs; "
            f"give it: from_pretrained(..., {lacking[0]}=...)"
        )


def component_files(folder: Path, index: Index) -> dict[str, list[str]]:
    """Names of the components to the names of their files; CheckpointError where a folder is missing."""
    files = {}
    for name, part in index.components.items():
        if not (folder / part.folder).is_dir():
            raise CheckpointError(f"{folder} lacks the component {part.folder!r}; fetch or save the model again")
        files[name] = [path.name for path in (folder / part.folder).iterdir()]
    return files


def check_files(folder: Path, index: Index, variant: str | None, given: Collection[str]) -> None:
    """Refuse a folder whose weights are not all there as safetensors inside it; nothing has been read then."""
    files = {name: names for name, names in component_files(folder, index).items() if name not in given}
    weight_files.check_variant(folder, files, variant)
    for name in files:
        weight_files.check_shards(folder / index.components[name].folder, variant)


def remaining_variant(folder: Path, index: Index, variant: str | None, given: Collection[str]) -> str | None:
    """The variant if a component that isn't given has it: diffusers refuses one that none has."""
    files = {name: names for name, names in component_files(folder, index).items() if name not in given}
    return variant if any(variant in weight_files.variants(names) for names in files.values()) else None


@contextmanager
def checkpoint_errors(folder: Path) -> Iterator[None]:
    """Turn what libraries raise about a pipeline's broken folder into one CheckpointError line."""
    component_files(folder, read_index(folder))
    with library_errors(folder):
        yield


@contextmanager
def library_errors(folder: Path) -> Iterator[None]:
    """Turn what libraries raise about broken files into one CheckpointError line."""
    try:
        yield
    except LatentDiffError:
        raise
    except TypeError as error:
        raise InputError(f"from_pretrained: {one_line(error)}") from None
    except (OSError, ValueError, LookupError, RuntimeError, SafetensorError, AttributeError) as error:
        raise CheckpointError(f"{folder} cannot be loaded ({one_line(error)}); fetch or save the model again") from None


def check_complete(
    folder: Path, index: Index, variant: str | None, components: dict[str, Any], given: Collection[str]
) -> None:
    """CheckpointError if a component's files lack a tensor of it: diffusers fills such with random numbers and warns.

    Our components are compared by name; others may store a tensor under an older name, so for them the number counts.

    Args:
        folder: The pipeline's folder.
        index: Of the folder.
        variant: Of the weights that were loaded.
        components: What was loaded from it.
        given: Names of components that came from elsewhere.
    """
    for name, component in components.items():
        if name in given or name not in index.components:
            continue
        stored = weight_files.tensor_names(folder / index.components[name].folder, variant)
        if not stored:
            continue
        needed = set(component.state_dict())
        renamed = any(weight_files.OLD_ATTENTION.search(tensor) for tensor in stored)
        own = type(component).__module__.startswith("latentdiff.") and not renamed
        lacking = sorted(needed - stored)
        if lacking and (own or len(stored) < len(needed)):
            raise CheckpointError(
                f"{folder}: {name} lacks {len(lacking)} tensors ({', '.join(lacking[:5])}); "
                "fetch or save the model again"
            )
