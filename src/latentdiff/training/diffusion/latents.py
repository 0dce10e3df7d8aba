"""Latents of a run's images, encoded once by its first stage."""

from __future__ import annotations

from pathlib import Path

from accelerate import Accelerator

from latentdiff.data.bad_files import BadFiles
from latentdiff.data.images import Images
from latentdiff.data.latent_cache import LatentCache, cache_latents
from latentdiff.training.recipes import Recipe
from latentdiff.types import FirstStage


def encode(
    recipe: Recipe,
    vae: FirstStage,
    images: Images,
    accelerator: Accelerator,
    bad_files: BadFiles,
    limit: int | None = None,
) -> LatentCache:
    """The latents to train on, in `latents/`, of the first `limit` images; `vae` comes to the device.

    Raises:
        ConfigError: If a run goes on with another first stage than it began with.
    """
    return _encode(recipe, vae, images.first(limit), accelerator, bad_files, "latents", recipe.data.random_flip)


def encode_held_out(
    recipe: Recipe,
    vae: FirstStage,
    images: Images,
    accelerator: Accelerator,
    bad_files: BadFiles,
    limit: int | None = None,
) -> LatentCache:
    """The latents to validate on, in `validation-latents/`; none are mirrored."""
    return _encode(recipe, vae, images.first(limit), accelerator, bad_files, "validation-latents", False)


def _encode(
    recipe: Recipe,
    vae: FirstStage,
    images: Images,
    accelerator: Accelerator,
    bad_files: BadFiles,
    name: str,
    random_flip: bool,
) -> LatentCache:
    with accelerator.main_process_first():
        return cache_latents(
            Path(recipe.output_dir) / name,
            vae.to(accelerator.device),
            images,
            bad_files,
            random_flip=random_flip,
            autocast=recipe.mixed_precision == "bf16",
            resuming=recipe.resume_from_checkpoint is not None,
        )
