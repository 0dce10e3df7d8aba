"""The pipeline that a recipe trains, and the conditioner that goes with it."""

from __future__ import annotations

import warnings

import torch

from latentdiff.config import Part, check, trait
from latentdiff.data.images import Images
from latentdiff.errors import ConfigError, LatentDiffWarning
from latentdiff.models.unet import UNet2DConditionModel
from latentdiff.pipelines.base import DiffusionPipeline
from latentdiff.pipelines.codec import factor
from latentdiff.pipelines.text_to_image import TextToImagePipeline
from latentdiff.pipelines.unconditional import UnconditionalPipeline
from latentdiff.registry import CONDITIONERS, PIPELINES
from latentdiff.schedulers.ddim import DDIMScheduler
from latentdiff.training.diffusion.conditioners.base import Conditioner, build
from latentdiff.training.diffusion.conditioners.beside_text import BesideTextConditioner
from latentdiff.training.diffusion.conditioners.options import ConditionOptions, UnconditionalOptions, condition_options
from latentdiff.training.diffusion.conditioners.text import TextConditioner
from latentdiff.training.first_stage.autoencoder import load_first_stage
from latentdiff.training.recipes import DiffusionRecipe
from latentdiff.types import FirstStage


def make_conditioner(recipe: DiffusionRecipe, images: Images) -> Conditioner[ConditionOptions]:
    """The conditioner of a recipe, around the pipeline to train: loaded whole, or new around a trained first stage.

    Raises:
        ConfigError: If the recipe doesn't fit together.
        CheckpointError: If the pipeline or the first stage can't be loaded.
        InputError: If the images lack what the condition is made of.
    """
    if recipe.pretrained_model_name_or_path is not None:
        pipeline = DiffusionPipeline.from_pretrained(recipe.pretrained_model_name_or_path)
        task = _task_of(pipeline) if recipe.conditioning is None else recipe.conditioning.type
        options = recipe.conditioning or condition_options(task)(type=task)
        _check_prompts(recipe, options)
        whole = type(pipeline) is _pipeline_class(task)
        replaced = _replaced(recipe) + (_replaced(options, "conditioning.") if whole else [])
        if options.captions is not None and options.captions is not options:
            replaced += _replaced(options.captions, "conditioning.text.")
        if replaced:
            line = f"the pretrained pipeline is kept as it is, so {', '.join(replaced)} of the recipe goes unused"
            warnings.warn(LatentDiffWarning(line), stacklevel=2)
        if not whole:
            pipeline = _conditioned(pipeline, recipe, options, images)
    else:
        options = recipe.conditioning or UnconditionalOptions()
        _check_prompts(recipe, options)
        assert recipe.vae is not None
        pipeline = new_pipeline(recipe, options, images, load_first_stage(recipe.vae))
    multiple, resolution = pipeline._multiple, recipe.data.resolution
    if resolution % multiple:
        raise ConfigError(f"data.resolution is {resolution}; this model needs a multiple of {multiple}")
    buckets = recipe.data.buckets
    if buckets is not None and buckets.multiple % multiple:
        raise ConfigError(f"data.buckets.multiple is {buckets.multiple}; this model needs a multiple of {multiple}")
    kind: type[Conditioner[ConditionOptions]] = CONDITIONERS.get(options.type)
    return kind(pipeline, options, recipe.data, recipe.output_dir, adapter=recipe.lora is not None)


def _check_prompts(recipe: DiffusionRecipe, options: ConditionOptions) -> None:
    """Refuse captions for what isn't made of captions."""
    takes = issubclass(CONDITIONERS.get(options.type), (TextConditioner, BesideTextConditioner))
    fits = takes or not recipe.validation.prompts
    check(fits, f"validation.prompts is given, but conditioning {options.type!r} does not use it; leave it out")


def _replaced(part: Part, prefix: str = "") -> list[str]:
    """The options that are given for what a pretrained pipeline has already."""
    fields = type(part).model_fields.items()
    return [prefix + name for name, field in fields if trait(field, "of_pipeline") and part.given(name)]


def _pipeline_class(task: str) -> type[DiffusionPipeline]:
    kind: type[DiffusionPipeline] = PIPELINES.get(CONDITIONERS.get(task).task or task)
    return kind


def _task_of(pipeline: DiffusionPipeline) -> str:
    for task in CONDITIONERS.names():
        if type(pipeline) is _pipeline_class(task) and CONDITIONERS.get(task).task is None:
            return task
    raise ConfigError(
        f"{type(pipeline).__name__} is no pipeline that can be trained; there are: {', '.join(CONDITIONERS.names())}"
    )


def _conditioned(
    pipeline: DiffusionPipeline, recipe: DiffusionRecipe, options: ConditionOptions, images: Images
) -> DiffusionPipeline:
    """The task's pipeline around the networks of another, which sees its condition in further channels.

    The other is unconditional; or it is of text, which it keeps, if the task's models may have both.

    Raises:
        ConfigError: If the pipeline has another condition, or the task's isn't concatenated.
    """
    task, latents = options.type, pipeline.vae.config.latent_channels
    kind, cls = CONDITIONERS.get(task), _pipeline_class(task)
    fitting = kind.unet_options(options, latents)
    check(recipe.lora is None, f"lora trains no new channels, which conditioning {task!r} needs here; leave lora out")
    by_text = type(pipeline) is TextToImagePipeline and issubclass(kind, BesideTextConditioner)
    if by_text:
        fitting.pop("cross_attention_dim", None)
    unet, free = pipeline.unet, by_text or type(pipeline) is UnconditionalPipeline
    if not free or not isinstance(unet, UNet2DConditionModel) or set(fitting) != {"in_channels"}:
        raise ConfigError(
            f"conditioning is {task!r}, which trains a {cls.__name__}, but the pretrained pipeline is a "
            f"{type(pipeline).__name__}; drop conditioning, or start super-resolution, inpaint or semantic-to-image "
            "from an UnconditionalPipeline, or the first two with captions from a TextToImagePipeline"
        )
    made = {} if by_text else kind.components(options, recipe.data, images, pipeline.vae)
    parts = {**pipeline.components, **made}
    return cls(**parts | {"unet": expand_conv_in(unet, fitting["in_channels"])})


def new_pipeline(
    recipe: DiffusionRecipe, options: ConditionOptions, images: Images, vae: FirstStage
) -> DiffusionPipeline:
    """A new pipeline of the recipe's configurations, on the default device.

    Args:
        recipe: Gives the configurations of UNet and noise schedule.
        options: The condition's options.
        images: What the pipeline is to be trained on.
        vae: Its first stage.

    Raises:
        ConfigError: If the recipe doesn't fit together.
        InputError: If the images lack what the condition is made of.
    """
    task, latents = options.type, vae.config.latent_channels
    kind = CONDITIONERS.get(task)
    scheduler = build(DDIMScheduler, "noise_schedule", recipe.noise_schedule)
    fitting: dict[str, int | None] = {"sample_size": recipe.data.resolution // factor(vae), "cross_attention_dim": None}
    fitting |= {"in_channels": latents, "out_channels": latents} | kind.unet_options(options, latents)
    for name, value in fitting.items():
        given = recipe.unet.get(name, value)
        if given != value:
            raise ConfigError(
                f"unet has {name} {given}, but the first stage, the resolution and conditioning {task!r} need {value}; "
                "leave it out"
            )
    unet = build(UNet2DConditionModel, "unet", {**fitting, **recipe.unet})
    parts = kind.components(options, recipe.data, images, vae)
    return _pipeline_class(task)(vae=vae, unet=unet, scheduler=scheduler, **parts)


def expand_conv_in(unet: UNet2DConditionModel, in_channels: int) -> UNet2DConditionModel:
    """A network whose first convolution takes further channels after the old ones, with weights of 0.

    So it predicts what the old one does, whatever the new channels hold, and training goes on from there; gradients
    reach the new weights at the first step.

    Args:
        unet: A network of fewer input channels, which is left as it is.
        in_channels: The channels of the new network's input.
    """
    wide: UNet2DConditionModel = type(unet).from_config({**unet.config, "in_channels": in_channels})
    weights: dict[str, torch.Tensor] = unet.state_dict()
    old = weights["conv_in.weight"]
    new = torch.zeros(len(old), in_channels, *old.shape[2:], dtype=old.dtype, device=old.device)
    new[:, : old.shape[1]] = old
    wide.load_state_dict({**weights, "conv_in.weight": new})
    return wide
