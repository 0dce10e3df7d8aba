"""Where a model or an adapter is that a user names: in the package, in a folder, or on the hub."""

from __future__ import annotations

import hashlib
import importlib.resources
import os
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from latentdiff.errors import CheckpointError, ConfigError, InputError, one_line
from latentdiff.hub.component_folder import list_names
from latentdiff.hub.confinement import check_link
from latentdiff.hub.index import INDEX, is_inside
from latentdiff.hub.json_files import read_json
from latentdiff.hub.weight_files import choose_adapter, parse
from latentdiff.io.staging import OLD, recover, staging_folder
from latentdiff.reading import open_file
from latentdiff.registry import nearest

if TYPE_CHECKING:
    from latentdiff.hub.download import HubOptions

SHARED = "shared.json"  # in a model of the package: which of its components are those of another model there
RUN_FILES = "log.jsonl", "checkpoint-*/manifest.json"  # of a training run; one that is short has no line to log
WINDOWS = ("\\", ":")  # in paths of Windows, and in no name of the hub
PIECES, PIECE = 64, 4096  # of a weight file that its model is told by, and the bytes of each


def builtin_models() -> dict[str, Path]:
    """The models that ship inside the package: "builtin:NAME" to their folders."""
    return {f"builtin:{path.name}": path for path in sorted(_builtin().iterdir()) if (path / INDEX).is_file()}


def _builtin() -> Path:
    """The folder of these models."""
    return Path(str(importlib.resources.files("latentdiff")), "builtin")


def shared_components(root: Path) -> dict[str, Path]:
    """The components of a model in the package whose folders are another one's, as the first stage of all is; by name.

    Only the package has such models: the files of any other can't lead out of its folder.
    """
    if root.parent != _builtin() or not (root / SHARED).is_file():
        return {}
    return {part: root.parent / str(owner) / part for part, owner in read_json(root / SHARED).items()}


def model_of_run(name: str) -> str:
    """The model that a name stands for: of the folder of a training run, the pipeline or first stage that it has made.

    A folder that is a model itself stands for itself, whatever lies in it.
    """
    run = Path(name)
    if (run / INDEX).exists():
        return name
    if (run / "pipeline" / INDEX).is_file():
        return str(run / "pipeline")
    return str(run / "vae") if (run / "vae" / "config.json").is_file() and is_run(run) else name


def weights_of_folder(name: str) -> str | None:
    """A hash that changes with the weights of a model in a folder; None for a model of the hub, or where there is none.

    Of each file the size and pieces all over it are hashed: training moves all weights of a component, and gigabytes
    need not be read. The times of files say nothing here, as copies of a model on several machines are one model.
    """
    root = builtin_models().get(name) or Path(model_of_run(name))
    digest = hashlib.sha256()
    found = {path.relative_to(root).as_posix(): path for path in [*root.glob("*"), *root.glob("*/*")]}
    for part, folder in shared_components(root).items():
        found |= {f"{part}/{path.name}": path for path in folder.glob("*")}
    places = [place for place in sorted(found, key=Path) if parse(found[place].name) and found[place].is_file()]
    for place in places:
        with open_file(found[place]) as file:
            size = os.fstat(file.fileno()).st_size
            digest.update(f"{place} {size}\n".encode())
            for piece in range(PIECES):
                file.seek(max(0, size - PIECE) * piece // (PIECES - 1))
                digest.update(file.read(PIECE))
    return digest.hexdigest() if places else None


def is_run(folder: Path) -> bool:
    """Whether the folder is that of a training run."""
    return any(any(folder.glob(pattern)) for pattern in RUN_FILES)


def is_hub_id(name: str | Path) -> bool:
    """Whether a name of which there is no file or folder is one of the hub.

    "owner/name" is, unless there is a folder "owner": of two readings it is the one that the user can see. Nothing else
    is asked of the hub.
    """
    if isinstance(name, Path) or name.startswith((".", "/", "~")) or any(sign in name for sign in WINDOWS):
        return False
    owner, _, rest = name.partition("/")
    return bool(owner and rest) and "/" not in rest and not Path(owner).exists()


def missing_folder(name: str | Path, advice: str) -> str:
    """The line about a name that is neither a folder nor on the hub.

    Args:
        name: What the user gave.
        advice: What to do.
    """
    text = str(name)
    owner = text.partition("/")[0]
    if text.count("/") == 1 and not text.startswith((".", "/", "~")) and Path(owner).exists():
        advice = f"{advice}; it isn't looked for on the hub, since there is {owner} here"
    return f"no such folder {text}; {advice}"


def local_path(name: str | Path) -> Path:
    """The path that a name is, if it is one; what a killed save was about to replace there is put back.

    Raises:
        CheckpointError: If that can't be done.
    """
    path = Path(name)
    try:
        recover(path.resolve())  # of a link, what it leads to is replaced by a save
    except (OSError, RuntimeError) as error:
        if path.exists():
            return path
        raise CheckpointError(
            f"{path} was being saved when that was interrupted, and can't be put back ({one_line(error)}); rename "
            f"{staging_folder(path)}/{OLD}-.../{path.name} to {path}"
        ) from None
    return path


def find_model(name: str | Path, subfolder: str | None, variant: str | None, hub: HubOptions) -> tuple[Path, Path]:
    """Find a model, and download it if it is on the hub.

    Args:
        name: "builtin:NAME", a folder with `model_index.json` or that of a training run, or a hub id ("owner/name").
        subfolder: Where in the model's folder or repository the pipeline lies.
        variant: The variant of the weights.
        hub: Options of `download.fetch`.

    Returns:
        The pipeline's folder, and the model's, in which it lies and out of which its files don't lead.

    Raises:
        CheckpointError: If the folder holds no pipeline.
        ConfigError: If there is no such model or folder.
        HubError: If the hub doesn't know the model or revision, refuses the token or can't be reached.
        InputError: If the subfolder leads out of the model.
    """
    if subfolder is not None and not is_inside(subfolder):
        raise InputError(f"subfolder is {subfolder!r}; it must be a path inside the model, such as 'small'")
    text = str(name)
    root = builtin_folder(text) if text.startswith("builtin:") else local_path(text)
    if root.is_dir():
        root = root if subfolder else Path(model_of_run(str(root)))
        folder = root / (subfolder or "")
        if not (folder / INDEX).is_file():
            raise CheckpointError(f"{folder} holds no {INDEX}; give the folder of a whole pipeline")
        return folder, root
    if root.is_file():
        raise CheckpointError(
            f"{text} is a file; give a model's folder, or make one of an original checkpoint with latentdiff convert"
        )
    if not is_hub_id(name):
        hint = nearest(text, builtin_models())
        if "/" not in text:
            raise ConfigError(f"unknown model {text!r}: no such folder, and no hub id of the form owner/name; {hint}")
        advice = f"give a model's folder, a hub id of the form owner/name, or a built-in model; {hint}"
        raise ConfigError(missing_folder(name, advice))
    from latentdiff.hub.download import fetch  # the hub's client takes a while to import

    folder = fetch(text, subfolder=subfolder, variant=variant, **hub)
    return folder, folder


def find_component(name: str, advice: str, config: str = "config.json", part: str | None = None) -> Path:
    """The folder of a component that lies by itself, which is downloaded if it is on the hub.

    Args:
        name: A folder, or a hub id.
        advice: What to do if there is no such folder.
        config: The name of the component's configuration.
        part: What the component is called in a pipeline; a hub id may be that of one.

    Raises:
        CheckpointError: If there is no such folder, it is a file, or the repository lacks a file of it.
        HubError: If the hub doesn't know it or can't be reached.
    """
    folder = local_path(name)
    if folder.is_dir():
        return folder
    if folder.exists():
        raise CheckpointError(f"{name} is a file; give the folder that holds it")
    if not is_hub_id(name):
        raise CheckpointError(missing_folder(name, advice))
    from latentdiff.hub.download import fetch_component  # the hub's client takes a while to import

    return fetch_component(name, config, part)


def find_adapter(
    source: str | Path, *, weight_name: str | None = None, subfolder: str | None = None, **hub: Unpack[HubOptions]
) -> Path:
    """Find the file of an adapter, and download it if it is on the hub.

    Args:
        source: A file, a folder, or a hub id.
        weight_name: The name of the file in the folder; it is looked for if None.
        subfolder: Where in the folder or repository the file lies.
        **hub: Options of `download.fetch_adapter`.

    Raises:
        CheckpointError: If there is no such folder, or it holds no adapter, or several, or a link out of it.
        HubError: If the hub doesn't know the model or revision, refuses the token or can't be reached.
        InputError: If the name or the subfolder leads out of the folder.
    """
    for option, value in (("weight_name", weight_name), ("subfolder", subfolder)):
        if value is not None and not is_inside(value):
            raise InputError(f"{option} is {value!r}; it must be a path inside the adapter's folder")
    root = local_path(source)
    if root.is_file():
        return root
    if root.is_dir():
        folder = root / (subfolder or "")
        path = folder / (weight_name or choose_adapter(str(folder), list_names(folder)))
        check_link(root, path)
        return path
    if not is_hub_id(source):
        line = missing_folder(source, "give an adapter's folder or file, or a hub id of the form owner/name")
        raise CheckpointError(f"{source} is no file or folder: {line}")
    from latentdiff.hub.download import fetch_adapter  # the hub's client takes a while to import

    return fetch_adapter(str(source), weight_name=weight_name, subfolder=subfolder, **hub)


def builtin_folder(name: str, part: str | None = None) -> Path:
    """The folder of a model that ships inside the package, or of one of its components.

    Args:
        name: Its name, "builtin:NAME".
        part: The component's name; None for the model.

    Raises:
        ConfigError: If there is no such model.
    """
    models = builtin_models()
    if name not in models:
        raise ConfigError(f"unknown model {name!r}; {nearest(name, models)}")
    root = models[name]
    return root if part is None else shared_components(root).get(part, root / part)
