"""Writing a pipeline's folder: all of it or nothing, and never over something else."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from pathlib import Path

from latentdiff.errors import InputError
from latentdiff.hub import weight_files
from latentdiff.hub.index import INDEX
from latentdiff.io.files import atomic_folder, check_writable
from latentdiff.io.staging import recover
from latentdiff.io.system import link_or_copy
from latentdiff.registry import nearest

HUB_OPTIONS = ("commit_message", "create_pr", "private", "repo_id", "revision", "subfolder", "token")


def check_save_options(
    variant: str | None, safe_serialization: bool, push_to_hub: bool, hub: Mapping[str, object]
) -> None:
    """Check the options of `save_pretrained`.

    Args:
        variant: The variant of the weights that is to be saved.
        safe_serialization: Whether weights are to be saved as safetensors.
        push_to_hub: Whether the folder is to be uploaded, too.
        hub: The options of the upload that were given.

    Raises:
        InputError: If the variant can't be part of a file name, or an option has no effect.
    """
    if variant is not None and not re.fullmatch(r"[\w-]+", variant):
        raise InputError(f"variant is {variant!r}; it must be of letters, digits, - and _, such as 'fp16'")
    if not safe_serialization:
        raise InputError("safe_serialization is False; weights are saved as safetensors only, leave it out")
    for name in hub:
        if name not in HUB_OPTIONS:
            raise InputError(f"save_pretrained takes no {name}; {nearest(name, HUB_OPTIONS)}")
        if not push_to_hub:
            raise InputError(f"{name} is an option for the hub; give push_to_hub=True with it")


def check_target(save_directory: str | Path) -> Path:
    """The folder that `save_directory` stands for; what a killed save of it left behind is put back or removed.

    Raises:
        InputError: If it can't be written, or is neither new nor empty nor a pipeline's.
    """
    path = Path(save_directory).resolve()  # the folder behind a link is replaced, not the link
    with suppress(OSError):  # which `check_writable` turns into a line
        recover(path)
    if path.exists() and not path.is_dir():
        raise InputError(f"{save_directory} is a file; give a folder to save the pipeline in")
    if path.is_dir() and any(path.iterdir()) and not (path / INDEX).is_file():
        raise InputError(f"{save_directory} is not empty and holds no pipeline; give a new folder")
    return check_writable(path)


def write_folder(path: Path, components: Collection[str], variant: str | None, write: Callable[[Path], None]) -> None:
    """Write a pipeline's folder, in which other files of an earlier one stay.

    Args:
        path: The folder, from `check_target`.
        components: The names of the components that `write` writes.
        variant: The variant of the weights that `write` writes.
        write: A function that fills an empty folder.
    """
    with atomic_folder(path) as aside:
        write(aside)
        if path.is_dir():
            _keep(path, aside, components, variant)


def _keep(old: Path, new: Path, components: Collection[str], variant: str | None) -> None:
    """Give `new` the files of `old` that it lacks, but no weights that would be loaded in place of the new ones."""
    for folder, subfolders, files in os.walk(old):
        inside = Path(folder).relative_to(old)
        for name in subfolders:
            if not (Path(folder) / name).is_symlink():
                (new / inside / name).mkdir(exist_ok=True)
        for name in [*files, *(name for name in subfolders if (Path(folder) / name).is_symlink())]:
            target = new / inside / name
            weights = weight_files.parse(name) if inside.as_posix() in components else None
            if target.exists() or (weights is not None and weights.variant == variant):
                continue
            link_or_copy(Path(folder) / name, target)


def drop_origins(folder: Path) -> None:
    """Take out of all configurations where they were loaded from: a path on this machine is nobody else's business."""
    for path in [folder / INDEX, *folder.glob("*/config.json")]:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values.pop("_name_or_path", None) is not None:
            path.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def is_replaced(path: str, components: Collection[str], variant: str | None) -> bool:
    """Whether a file of a pipeline's folder holds weights of one variant, which new ones of it replace.

    Args:
        path: The path in the folder, such as "unet/diffusion_pytorch_model.safetensors".
        components: The names of the components that have new weights.
        variant: The variant of the new weights.
    """
    component, _, name = path.rpartition("/")
    file = weight_files.parse(name)
    return component in components and file is not None and file.variant == variant and not file.pickled
