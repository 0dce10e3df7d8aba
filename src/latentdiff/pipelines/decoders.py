"""Tiny decoders, and the first stages whose place they take."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from latentdiff.errors import CheckpointError, ConfigError
from latentdiff.hub.component_folder import ComponentFolder
from latentdiff.hub.find import find_component
from latentdiff.hub.index import IndexEntry
from latentdiff.hub.networks import load_alone
from latentdiff.models.tiny_decoder import TinyDecoder
from latentdiff.pipelines import codec
from latentdiff.types import FirstStage

CLASS = TinyDecoder.__name__


def load_decoder(name: str | Path) -> TinyDecoder:
    """The decoder in a folder, that of the run that made it, or on the hub, in the data type that it is stored in.

    Raises:
        CheckpointError: If there is no such folder, or it holds something else, or can't be loaded.
        HubError: If the hub doesn't know it or can't be reached.
    """
    found = find_component(str(name), "distil one: latentdiff train first-stage --distill-decoder")
    folder = found / "decoder" if (found / "decoder" / "config.json").is_file() else found
    part = ComponentFolder.open(folder)
    if part.class_name != CLASS:
        what = f"a {part.class_name}" if part.class_name else "no component"
        raise CheckpointError(f"{folder} is {what}; give the folder of a {CLASS}")
    decoder: TinyDecoder = load_alone(part, IndexEntry(folder.name, "latentdiff", CLASS), torch.float32)
    return decoder


def fitting_decoder(decoder: str | Path | TinyDecoder, vae: FirstStage) -> TinyDecoder:
    """A decoder with a first stage's scale of latents, on its device and in its data type.

    Args:
        decoder: A decoder, which is changed so, or its name as for `load_decoder`.
        vae: The first stage whose place it takes.

    Raises:
        CheckpointError: If it can't be loaded.
        ConfigError: If it is a decoder of other latents.
        HubError: If the hub doesn't know it or can't be reached.
    """
    made: TinyDecoder = decoder if isinstance(decoder, TinyDecoder) else load_decoder(decoder)
    theirs, ours = (
        (stage.config.latent_channels, stage.config.out_channels, codec.factor(stage)) for stage in (made, vae)
    )
    if theirs != ours:
        names = ("latent_channels", "out_channels", "pixels along a latent's side")
        differs = [f"{a} {name}, this model {b}" for name, a, b in zip(names, theirs, ours, strict=True) if a != b]
        raise ConfigError(f"the decoder has {'; '.join(differs)}; give one that was distilled from this model")
    made.register_to_config(scaling_factor=vae.config.scaling_factor, shift_factor=codec.shift(vae) or None)
    nn.Module.to(made, vae.device, vae.dtype)  # diffusers' own method warns of every cast
    return made
