"""Latents of a run's images, encoded once by its first stage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from accelerate import Accelerator

from latentdiff.data.folder import ImageFolder
from latentdiff.data.latent_cache import LatentCache, cache_latents
from latentdiff.training.recipes import Recipe


def encode(recipe: Recipe, vae: Any, images: ImageFolder, accelerator: Accelerator) -> LatentCache:
    """The latents to train on, in `latents/`; `vae` comes to the device."""
    return _encode(recipe, vae, images, accelerator, "latents", recipe.random_flip)


def encode_held_out(recipe: Recipe, vae: Any, images: ImageFolder, accelerator: Accelerator) -> LatentCache:
    """The latents to validate on, in `validation-latents/`; none are mirrored."""
    return _encode(recipe, vae, images, accelerator, "validation-latents", False)


def _encode(
    recipe: Recipe, vae: Any, images: ImageFolder, accelerator: Accelerator, name: str, random_flip: bool
) -> LatentCache:
    with accelerator.main_process_first():
        return cache_latents(
            Path(recipe.output_dir) / name,
            vae.to(accelerator.device),
            images,
            random_flip=random_flip,
            autocast=recipe.mixed_precision == "bf16",
        )
