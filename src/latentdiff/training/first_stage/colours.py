"""The map from latents to colours that a first stage is exported with."""

from __future__ import annotations

import warnings

import torch
from torch.distributed.fsdp import FSDPModule

from latentdiff.errors import LatentDiffWarning, NonFiniteError
from latentdiff.pipelines import codec, preview
from latentdiff.training.first_stage.autoencoder import Autoencoder
from latentdiff.training.first_stage.held_out import Tensors


def fit_colours(vae: Autoencoder, images: Tensors) -> None:
    """Fit a first stage's map from latents to colours on some of the images, and put it into its configuration.

    Args:
        vae: KL or VQ, in evaluation mode or not.
        images: (C, H, W) in [-1, 1]; a few of them, spread over all, are read. Without any nothing is done, nor for a
            first stage in shards, which a process can't run alone: its map is fitted when it is first needed.
    """
    if not len(images) or any(isinstance(module, FSDPModule) for module in vae.modules()):
        return
    numbers = preview.chosen_for_fit(len(images), images[0].shape[-1])
    batch = torch.stack([images[number] for number in numbers])
    try:
        preview.fit(vae, codec.encode(vae, batch, scaled=True))
    except NonFiniteError:
        line = "the first stage decodes images to numbers that are not finite, so no map for previews is fitted"
        warnings.warn(LatentDiffWarning(line), stacklevel=2)
