"""The pipeline that a recipe trains, and the conditioner that goes with it."""

from __future__ import annotations

import warnings
from typing import Any

from latentdiff.config import check
from latentdiff.data.images import Images
from latentdiff.errors import ConfigError, LatentDiffWarning
from latentdiff.models.unet import UNet2DConditionModel
from latentdiff.pipelines.base import DiffusionPipeline
from latentdiff.pipelines.codec import factor
from latentdiff.pipelines.unconditional import UnconditionalPipeline
from latentdiff.registry import CONDITIONERS, PIPELINES, load_plugins
from latentdiff.schedulers.ddim import DDIMScheduler
from latentdiff.training.diffusion.conditioners.base import Conditioner, build
from latentdiff.training.diffusion.expand import expand_conv_in
from latentdiff.training.first_stage.autoencoder import load_first_stage
from latentdiff.training.recipes.stages import DiffusionRecipe


def make_conditioner(recipe: DiffusionRecipe, images: Images) -> Conditioner:
    """The conditioner of a recipe, around the pipeline to train: loaded whole, or new around a trained first stage.

    Raises:
        ConfigError: If the recipe doesn't fit together.
        CheckpointError: If the pipeline or the first stage can't be loaded.
        InputError: If the images lack what the condition is made of.
    """
    if recipe.conditioning is not None and recipe.conditioning not in CONDITIONERS:
        load_plugins()
    if recipe.pretrained_model_name_or_path is not None:
        pipeline: Any = DiffusionPipeline.from_pretrained(recipe.pretrained_model_name_or_path)
        task = recipe.conditioning or _task_of(pipeline)
        kind = _conditioner_class(recipe, task)
        whole = type(pipeline) is _pipeline_class(task)
        if replaced := recipe.replaced(whole):
            line = f"the pretrained pipeline is kept as it is, so {', '.join(replaced)} of the recipe goes unused"
            warnings.warn(LatentDiffWarning(line), stacklevel=2)
        if not whole:
            pipeline = _conditioned(pipeline, recipe, images, task)
    else:
        task = recipe.conditioning or ("text-to-image" if recipe.text_encoder else "unconditional")
        kind = _conditioner_class(recipe, task)
        assert recipe.vae is not None
        pipeline = new_pipeline(recipe, images, task, load_first_stage(recipe.vae))
    multiple = pipeline._multiple
    if recipe.resolution % multiple:
        raise ConfigError(f"resolution is {recipe.resolution}; this model needs a multiple of {multiple}")
    conditioner: Conditioner = kind(pipeline, recipe)
    return conditioner


def _conditioner_class(recipe: DiffusionRecipe, task: str) -> type[Conditioner]:
    """The class of a task's conditioner, none of the recipe's options being for another."""
    kind: type[Conditioner] = CONDITIONERS.get(task)
    recipe.check_used(task, (*kind.options, *([] if kind.dropout is None else ["condition_dropout"])))
    return kind


def _pipeline_class(task: str) -> Any:
    return PIPELINES.get(CONDITIONERS.get(task).task or task)


def _task_of(pipeline: Any) -> str:
    for task in CONDITIONERS.names():
        if type(pipeline) is _pipeline_class(task) and CONDITIONERS.get(task).task is None:
            return task
    raise ConfigError(
        f"{type(pipeline).__name__} is no pipeline that can be trained; there are: {', '.join(CONDITIONERS.names())}"
    )


def _conditioned(pipeline: Any, recipe: DiffusionRecipe, images: Images, task: str) -> Any:
    """The task's pipeline around the networks of an unconditional one, which sees its condition in further channels.

    Raises:
        ConfigError: If the pipeline has a condition, or the task's isn't concatenated.
    """
    kind, cls, latents = CONDITIONERS.get(task), _pipeline_class(task), pipeline.vae.config.latent_channels
    fitting = kind.unet_options(recipe, latents)
    check(not recipe.lora, f"lora trains no new channels, which conditioning {task!r} needs here; leave lora out")
    own = type(pipeline) is UnconditionalPipeline and isinstance(pipeline.unet, UNet2DConditionModel)
    if not own or set(fitting) != {"in_channels"}:
        raise ConfigError(
            f"conditioning is {task!r}, which trains a {cls.__name__}, but the pretrained pipeline is a "
            f"{type(pipeline).__name__}; drop conditioning, or start super-resolution, inpaint or semantic-to-image "
            "from an UnconditionalPipeline"
        )
    parts = {**pipeline.components, **kind.components(recipe, images, pipeline.vae)}
    return cls(**parts | {"unet": expand_conv_in(pipeline.unet, fitting["in_channels"])})


def new_pipeline(recipe: DiffusionRecipe, images: Images, task: str, vae: Any) -> Any:
    """A new pipeline of the recipe's configurations, on the default device, around the first stage `vae`.

    Raises:
        ConfigError: If the recipe doesn't fit together.
        InputError: If the images lack what the condition is made of.
    """
    kind = _conditioner_class(recipe, task)
    scheduler = build(DDIMScheduler, "noise_schedule", recipe.noise_schedule)
    latents = vae.config.latent_channels
    fitting = {"sample_size": recipe.resolution // factor(vae), "in_channels": latents, "out_channels": latents}
    fitting |= {"cross_attention_dim": None} | kind.unet_options(recipe, latents)
    for name, value in fitting.items():
        given = recipe.unet.get(name, value)
        if given != value:
            raise ConfigError(
                f"unet has {name} {given}, but the first stage, the resolution and conditioning {task!r} need {value}; "
                "leave it out"
            )
    unet = build(UNet2DConditionModel, "unet", {**fitting, **recipe.unet})
    parts = kind.components(recipe, images, vae)
    return _pipeline_class(task)(vae=vae, unet=unet, scheduler=scheduler, **parts)
