"""Components that are loaded as other classes, or under other names, than their folder says."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from latentdiff.errors import CheckpointError, ConfigError
from latentdiff.hub import weight_files
from latentdiff.hub.index import LIBRARIES, Component, Index, read_json

STOCK_UNETS = ("UNet2DConditionModel", "UNet2DModel")

# What a component can be; a pipeline can't, since its folder would be read by other rules.
BASES = {
    "diffusers": ("ModelMixin", "SchedulerMixin"),
    "latentdiff": ("ModelMixin", "SchedulerMixin", "LayoutTokenizer"),
    "transformers": (
        "PreTrainedModel",
        "PreTrainedTokenizerBase",
        "FeatureExtractionMixin",
        "ImageProcessingMixin",
        "ProcessorMixin",
    ),
}


def component_class(folder: Path, name: str, part: Component) -> Any:
    """The class of a component; ConfigError if its library has no component of that name."""
    library = importlib.import_module(part.library)
    found = getattr(library, part.class_name, None)
    bases = tuple(getattr(library, base) for base in BASES[part.library])
    if not isinstance(found, type) or not issubclass(found, bases):
        raise ConfigError(
            f"{folder}: {name} is {part.class_name!r}, no component of {part.library}; "
            f"allowed: the models, schedulers and tokenizers of {', '.join(LIBRARIES)}"
        )
    return found


def own_components(folder: Path, index: Index, variant: str | None, options: dict[str, Any]) -> dict[str, Any]:
    """What is loaded here and not by diffusers: stock UNets, as our class, and what has another name here.

    Args:
        folder: The pipeline's folder.
        index: Of the folder.
        variant: Of the weights.
        options: Of `from_pretrained`; components among them are not loaded.
    """
    parts: dict[str, Any] = {}
    for name, part in index.components.items():
        found = component_class(folder, name, part)
        if name in options:
            continue
        settings = _settings(folder / part.folder, name, variant, options)
        if part.library == "diffusers" and part.class_name in STOCK_UNETS:
            unet = _own_unet(folder / part.folder, found, settings)
            parts |= {} if unet is None else {name: unet}
        elif part.folder != name and part.class_name == "LDMTextEncoder":
            parts[name] = _text_encoder(folder / part.folder, found, settings)
        elif part.folder != name:
            parts[name] = found.from_pretrained(folder / part.folder, **settings, **_scale(folder / part.folder, part))
    return parts


def _settings(folder: Path, name: str, variant: str | None, options: dict[str, Any]) -> dict[str, Any]:
    dtype = options.get("dtype", options.get("torch_dtype"))
    if isinstance(dtype, dict):
        dtype = dtype.get(name, dtype.get("default"))
    there = weight_files.variants(path.name for path in folder.iterdir())
    chosen = variant if variant in there else None
    return {"variant": chosen, "use_safetensors": True} | ({} if dtype is None else {"dtype": dtype})


def _own_unet(folder: Path, stock: Any, settings: dict[str, Any]) -> Any:
    """The UNet as our class, which has its keys and is faster; None where the stock class has to serve it."""
    from latentdiff.models.unet import UNet2DConditionModel

    try:
        stored = weight_files.tensor_names(folder, settings["variant"])
        if not any(weight_files.OLD_ATTENTION.search(name) for name in stored):
            return UNet2DConditionModel.from_pretrained(folder, **settings)
        unet = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(folder))
    except ConfigError:
        return None  # outside our configuration space
    renamed = stock.from_pretrained(folder, **settings)  # diffusers knows the older names
    unet.load_state_dict(renamed.state_dict())
    return _cast(unet, renamed.dtype)


def _text_encoder(folder: Path, cls: Any, settings: dict[str, Any]) -> Any:
    """The text encoder of a folder that transformers wrote, which names weight files differently."""
    encoder = cls.from_config(read_json(folder / "config.json"))
    tensors: dict[str, Any] = {}
    for name in weight_files.weights([path.name for path in folder.iterdir()], settings["variant"]):
        if name.endswith(".safetensors"):
            tensors |= load_file(folder / name)
    needed = encoder.state_dict()
    lacking = sorted(set(needed) - set(tensors))
    if lacking:
        raise CheckpointError(
            f"{folder} lacks {len(lacking)} tensors ({', '.join(lacking[:5])}); fetch or save the model again"
        )
    encoder.load_state_dict({name: tensors[name] for name in needed})
    return _cast(encoder, settings.get("dtype", encoder.dtype))


def _cast(network: torch.nn.Module, dtype: torch.dtype) -> torch.nn.Module:
    return torch.nn.Module.to(network, dtype).eval()  # diffusers' own method warns of every cast


def _scale(folder: Path, part: Component) -> dict[str, Any]:
    """VQ models of 2022 know no scale and mean 1; diffusers' default is another since."""
    silent = part.class_name == "VQModel" and "scaling_factor" not in read_json(folder / "config.json")
    return {"scaling_factor": 1.0} if silent else {}
