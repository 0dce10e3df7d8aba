"""Components that are loaded here and not by diffusers, since their class or name is another here than in the index."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from latentdiff.errors import ConfigError
from latentdiff.hub.component_folder import ComponentFolder
from latentdiff.hub.index import LIBRARIES, IndexEntry

DTypes = torch.dtype | Mapping[str, torch.dtype] | None

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


def component_class(folder: Path, entry: IndexEntry) -> type[Any]:
    """The class that the index of a pipeline's folder names for a component.

    Raises:
        ConfigError: If the library has no component of that name.
    """
    library = importlib.import_module(entry.library)
    found = getattr(library, entry.class_name, None)
    bases = tuple(getattr(library, base) for base in BASES[entry.library])
    if not isinstance(found, type) or not issubclass(found, bases):
        raise ConfigError(
            f"{folder}: {entry.folder} is {entry.class_name!r}, no component of {entry.library}; "
            f"allowed: the models, schedulers and tokenizers of {', '.join(LIBRARIES)}"
        )
    return found


def load_own(name: str, part: ComponentFolder, entry: IndexEntry, dtype: DTypes) -> nn.Module | None:
    """Load a stock UNet as our class, and what the index calls by another name; None for what diffusers loads.

    Args:
        name: The name of the component in this package.
        part: The component's folder.
        entry: What the index says of it.
        dtype: The data type of the weights, or one for each component's name and "default"; None for the default of
            the libraries.

    Raises:
        CheckpointError: If the weights lack a tensor.
    """
    if isinstance(dtype, Mapping):
        dtype = dtype.get(name, dtype.get("default"))
    settings: dict[str, object] = {"variant": part.variant, "use_safetensors": True}
    if dtype is not None:
        settings["dtype"] = dtype
    found = component_class(part.path.parent, entry)
    if entry.library == "diffusers" and entry.class_name in STOCK_UNETS:
        return _own_unet(part, found, settings)
    if entry.folder == name:
        return None
    if entry.class_name == "LDMTextEncoder":
        return _text_encoder(part, found, dtype)
    if entry.class_name == "VQModel" and "scaling_factor" not in part.config:
        settings["scaling_factor"] = 1.0  # what the models of 2022 mean; diffusers' default has been another since
    renamed: nn.Module = found.from_pretrained(part.path, **settings)
    return renamed


def _own_unet(part: ComponentFolder, stock: type[Any], settings: Mapping[str, object]) -> nn.Module | None:
    """The UNet as our class, which has its keys and is faster; None where the stock class has to serve it."""
    from latentdiff.models.unet import UNet2DConditionModel

    try:
        if not part.has_old_attention:
            own: nn.Module = UNet2DConditionModel.from_pretrained(part.path, **settings)
            return own
        unet: nn.Module = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(part.path))
    except ConfigError:
        return None  # outside our configuration space
    renamed = stock.from_pretrained(part.path, **settings)  # diffusers knows the older names
    unet.load_state_dict(renamed.state_dict())
    return _cast(unet, renamed.dtype)


def _text_encoder(part: ComponentFolder, own: type[Any], dtype: torch.dtype | None) -> nn.Module:
    """The text encoder of a folder that transformers wrote, which names weight files differently."""
    encoder = own.from_config(own.load_config(part.path))
    needed = encoder.state_dict().keys()
    part.check_tensors(needed)
    tensors: dict[str, Tensor] = {}
    for path in part.weight_paths:
        tensors |= load_file(path)
    encoder.load_state_dict({name: tensors[name] for name in needed})
    return _cast(encoder, dtype or encoder.dtype)


def _cast(network: nn.Module, dtype: torch.dtype) -> nn.Module:
    return nn.Module.to(network, dtype).eval()  # diffusers' own method warns of every cast
