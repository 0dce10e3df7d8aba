"""The first stage that a recipe trains: new, or one that was trained before."""

from __future__ import annotations

from typing import TypeAlias

import torch
from diffusers import AutoencoderKL

from latentdiff.errors import CheckpointError, ConfigError
from latentdiff.hub.component_folder import ComponentFolder
from latentdiff.hub.components import FIRST_STAGES
from latentdiff.hub.find import builtin_folder, find_component
from latentdiff.hub.index import IndexEntry
from latentdiff.hub.networks import load_alone
from latentdiff.models.autoencoder_fsq import FSQModel
from latentdiff.models.autoencoder_rvq import ResidualVQModel
from latentdiff.models.autoencoder_vq import VQModel
from latentdiff.pipelines.codec import factor
from latentdiff.registry import nearest
from latentdiff.training.first_stage.options import PRETRAINED
from latentdiff.training.first_stage.presets import expanded
from latentdiff.types import JSON

Autoencoder: TypeAlias = AutoencoderKL | VQModel
"""A first stage that can be trained."""
CLASSES: dict[str, type[Autoencoder]] = {
    kind.__name__: kind for kind in (AutoencoderKL, VQModel, FSQModel, ResidualVQModel)
}


def make_first_stage(model: JSON, channels: int, resolution: int) -> Autoencoder:
    """A new first stage, or a trained one to go on with, that fits the images.

    Args:
        model: Constructor arguments, and `_class_name` if it isn't AutoencoderKL, or `downsampling_factor` for those of
            a preset; or `pretrained_model_name_or_path`.
        channels: The images' channels, which in_channels and out_channels follow from.
        resolution: Side of the images in pixels.

    Raises:
        ConfigError: If the arguments are not those of the class, or don't fit the images.
        CheckpointError: If a trained one can't be loaded.
    """
    if PRETRAINED in model:
        if len(model) > 1:
            raise ConfigError(f"model has {sorted(set(model) - {PRETRAINED})} beside {PRETRAINED}; leave them out")
        vae = load_first_stage(model[PRETRAINED])
    else:
        options = {"in_channels": channels, "out_channels": channels, **expanded(model)}
        name = options.pop("_class_name", "AutoencoderKL")
        if name not in CLASSES:
            raise ConfigError(f"model has _class_name {name!r}; {nearest(name, CLASSES)}")
        try:
            vae = CLASSES[name](**options)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"model does not fit {name} ({error}); see its documentation") from None
    sizes = {name: vae.config[name] for name in ("in_channels", "out_channels")}
    if set(sizes.values()) != {channels}:
        raise ConfigError(
            f"the images have {channels} channels, but model has {sizes}; give data.channels, or leave these out"
        )
    if resolution % factor(vae):
        raise ConfigError(f"data.resolution is {resolution}; this model needs a multiple of {factor(vae)}")
    return vae


def load_first_stage(name: str) -> Autoencoder:
    """The first stage in a folder, of a model in the package ("builtin:NAME") or on the hub, KL or VQ, in fp32.

    Raises:
        CheckpointError: If there is no such folder, or it can't be loaded.
        ConfigError: If no such model is in the package.
        HubError: If the hub doesn't know it or can't be reached.
    """
    if name.startswith("builtin:"):
        folder = builtin_folder(name, "vae")
    else:
        folder = find_component(name, "train the first stage first, or give the folder of one", part="vae")
    if (folder / "vae" / "config.json").is_file():
        raise CheckpointError(f"{folder} is no first stage, but holds one; give {folder / 'vae'}")
    part = ComponentFolder.open(folder)
    kind = part.class_name or "AutoencoderKL"
    if kind not in CLASSES:
        raise CheckpointError(f"{folder} is a {kind}, no first stage; give one of the class {' or '.join(CLASSES)}")
    vae: Autoencoder = load_alone(part, IndexEntry(folder.name, FIRST_STAGES[kind], kind), torch.float32)
    return vae
