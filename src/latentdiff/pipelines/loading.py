"""Finding a pipeline's folder and class, and saying plainly what is wrong with it."""

from __future__ import annotations

import importlib.resources
import json
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled
from safetensors import SafetensorError

from latentdiff.errors import CheckpointError, ConfigError, HubError, InputError, LatentDiffError
from latentdiff.io.headers import read_header
from latentdiff.registry import PIPELINES, nearest

INDEX = "model_index.json"

# Pipelines of diffusers whose folders are of a task that we have.
STOCK_PIPELINES = {
    "StableDiffusionPipeline": "text-to-image",
    "LDMTextToImagePipeline": "text-to-image",
    "LDMPipeline": "unconditional",
}
STOCK_UNETS = {"UNet2DConditionModel", "UNet2DModel"}


def builtin_models() -> list[str]:
    """Names of the models that ship inside the package."""
    root = importlib.resources.files("latentdiff") / "builtin"
    return sorted(entry.name for entry in root.iterdir() if (entry / INDEX).is_file()) if root.is_dir() else []


def find_folder(cls: Any, name: str | Path, options: dict[str, Any]) -> Path:
    """The local folder of a model: built in, on disk, or downloaded with the hub options among `options`."""
    text = str(name)
    if text.startswith("builtin:"):
        known = builtin_models()
        if text.removeprefix("builtin:") not in known:
            raise ConfigError(f"unknown model {text!r}; {nearest(text, [f'builtin:{k}' for k in known])}")
        return Path(str(importlib.resources.files("latentdiff"))) / "builtin" / text.removeprefix("builtin:")
    if Path(text).is_dir():
        if not (Path(text) / INDEX).exists():
            raise CheckpointError(f"{text} holds no {INDEX}; give the folder of a whole pipeline")
        return Path(text)
    if isinstance(name, Path) or text.count("/") != 1 or text.startswith((".", "/")):
        known = [f"builtin:{k}" for k in builtin_models()]
        hint = nearest(text, known)
        raise ConfigError(f"unknown model {text!r}: no such folder, and no hub id of the form owner/name; {hint}")
    hub = {key: options[key] for key in HUB_OPTIONS if key in options}
    try:
        return Path(cls.download(text, **hub))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        raise HubError(
            f"model {text!r} could not be fetched ({_line(error)}); check the name, token and network"
        ) from None


HUB_OPTIONS = ("cache_dir", "force_download", "local_files_only", "revision", "token", "use_safetensors", "variant")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a model folder; CheckpointError where it is missing or damaged."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read ({_line(error)}); fetch the model again") from None
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} holds no JSON object; fetch the model again")
    return values


def pipeline_class(cls: Any, folder: Path) -> Any:
    """`cls` itself if it is a task's pipeline, else the one that the folder's index names."""
    if cls.__name__ != "DiffusionPipeline":
        return cls
    name = str(read_json(folder / INDEX).get("_class_name"))
    own = {PIPELINES.get(task).__name__: task for task in PIPELINES.names()}
    known = {**own, **STOCK_PIPELINES}
    if name not in known:
        raise ConfigError(f"{folder} is of the pipeline class {name!r}; {nearest(name, known)}")
    return PIPELINES.get(known[name])


def own_unet(folder: Path, options: dict[str, Any]) -> dict[str, Any]:
    """The UNet of a stock folder as our class, which has its keys and is faster; empty where there is nothing to do."""
    entry = read_json(folder / INDEX).get("unet", [None, None])
    if "unet" in options or entry[0] != "diffusers" or entry[1] not in STOCK_UNETS:
        return {}
    from latentdiff.models.unet import UNet2DConditionModel

    passed = {key: options[key] for key in ("dtype", "torch_dtype", "variant", "use_safetensors") if key in options}
    try:
        with checkpoint_errors(folder):
            return {"unet": UNet2DConditionModel.from_pretrained(folder, subfolder="unet", **passed)}
    except ConfigError:
        return {}  # outside our configuration space: the stock class serves it


@contextmanager
def checkpoint_errors(folder: Path) -> Iterator[None]:
    """Turn what libraries raise about a broken folder into one CheckpointError line."""
    missing = next((path for path in _missing(folder)), None)
    if missing is not None:
        raise CheckpointError(f"{folder} lacks the component {missing!r}; fetch or save the model again")
    try:
        yield
    except LatentDiffError:
        raise
    except TypeError as error:
        raise InputError(f"from_pretrained: {_line(error)}") from None
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError, AttributeError) as error:
        raise CheckpointError(f"{folder} cannot be loaded ({_line(error)}); fetch or save the model again") from None


def check_complete(folder: Path, components: dict[str, Any], given: Collection[str]) -> None:
    """CheckpointError if a component's files lack a tensor of it: diffusers fills such with random numbers and warns.

    Our components are compared by name; others may store a tensor under an older name, so for them the number counts.

    Args:
        folder: The pipeline's folder.
        components: What was loaded from it.
        given: Names of components that came from elsewhere.
    """
    for name, component in components.items():
        stored = {tensor for path in (folder / name).glob("*.safetensors") for tensor in read_header(path)}
        if name in given or not stored:
            continue
        needed = set(component.state_dict())
        if type(component).__module__.startswith("latentdiff.") or len(stored) < len(needed):
            lacking = sorted(needed - stored)
            if lacking:
                raise CheckpointError(
                    f"{folder}: {name} lacks {len(lacking)} tensors ({', '.join(lacking[:5])}); "
                    "fetch or save the model again"
                )


def _missing(folder: Path) -> Iterator[str]:
    for name, entry in read_json(folder / INDEX).items():
        if isinstance(entry, list) and entry and entry[0] is not None and not (folder / name).is_dir():
            yield name


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
