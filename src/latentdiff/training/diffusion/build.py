"""The pipeline that a recipe trains, and the conditioner that goes with it."""

from __future__ import annotations

import warnings

from latentdiff.config import Part, check, trait
from latentdiff.data.images import Images
from latentdiff.errors import ConfigError, LatentDiffWarning
from latentdiff.models.unet import UNet2DConditionModel
from latentdiff.pipelines.base import DiffusionPipeline
from latentdiff.pipelines.codec import factor
from latentdiff.registry import CONDITIONERS, PIPELINES
from latentdiff.schedulers.base import TableScheduler
from latentdiff.schedulers.ddim import DDIMScheduler
from latentdiff.schedulers.flow_euler import FlowMatchEulerScheduler
from latentdiff.schedulers.predictions import FLOW
from latentdiff.training.diffusion.conditioners.base import Conditioner, build
from latentdiff.training.diffusion.conditioners.beside_text import BesideTextConditioner
from latentdiff.training.diffusion.conditioners.options import ConditionOptions, UnconditionalOptions, condition_options
from latentdiff.training.diffusion.conditioners.text import TextConditioner
from latentdiff.training.diffusion.starting import started_from
from latentdiff.training.first_stage.autoencoder import load_first_stage
from latentdiff.training.recipes import DiffusionRecipe
from latentdiff.types import JSON, FirstStage


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
        captions = options.captions
        if captions is not None and options.members == [options] != [captions]:
            replaced += _replaced(captions, "conditioning.text.")
        if whole and options.members != [options]:
            replaced += [name for part in options.members for name in _replaced(part, "conditioning.parts.")]
        if replaced:
            line = f"the pretrained pipeline is kept as it is, so {', '.join(replaced)} of the recipe goes unused"
            warnings.warn(LatentDiffWarning(line), stacklevel=2)
        if recipe.vae is not None or not whole:
            vae = pipeline.vae if recipe.vae is None else load_first_stage(recipe.vae)
            pipeline = started_from(pipeline, _pipeline_class(task), recipe, options, images, vae)
        _note_size(pipeline, recipe)
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
    alone = recipe.lora is not None or recipe.distill is not None
    return kind(pipeline, options, recipe.data, recipe.output_dir, adapter=alone)


def _check_prompts(recipe: DiffusionRecipe, options: ConditionOptions) -> None:
    """Refuse captions for what isn't made of captions."""
    kinds = (TextConditioner, BesideTextConditioner)
    takes = any(issubclass(CONDITIONERS.get(part.type), kinds) for part in options.members) or not options.members
    fits = takes or not recipe.validation.prompts
    check(fits, f"validation.prompts is given, but conditioning {options.type!r} does not use it; leave it out")


def _replaced(part: Part, prefix: str = "") -> list[str]:
    """The options that are given for what a pretrained pipeline has already."""
    fields = type(part).model_fields.items()
    replaced = [prefix + name for name, field in fields if trait(field, "of_pipeline") and part.given(name)]
    measured = isinstance(part, DiffusionRecipe) and part.vae is not None  # the scale of another first stage's latents
    return [name for name in replaced if not (measured and name == "latent_scale_images")]


def _note_size(pipeline: DiffusionPipeline, recipe: DiffusionRecipe) -> None:
    """Note in the UNet's configuration that it is trained on another size, which calls then have by default."""
    side, unet = recipe.data.resolution // factor(pipeline.vae), pipeline.components["unet"]
    if recipe.lora is None and unet.config.sample_size not in (side, [side, side], (side, side)):
        unet.register_to_config(sample_size=side)


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
    scheduler = new_scheduler(recipe.noise_schedule)
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


def new_scheduler(section: JSON) -> TableScheduler:
    """The scheduler of a new pipeline: DDIM's, or for a flow Euler's.

    Where training ends at pure noise, runs have to begin there (Lin et al. 2023, arXiv 2305.08891, section 3.3), which
    "trailing" spacing does.

    Args:
        section: Its arguments, as the recipe has them.

    Raises:
        ConfigError: If they don't fit.
    """
    flow = section.get("prediction_type") == FLOW
    if flow or section.get("rescale_betas_zero_snr"):
        section = {"timestep_spacing": "trailing", **section}
    kind: type[TableScheduler] = FlowMatchEulerScheduler if flow else DDIMScheduler
    return build(kind, "noise_schedule", section)
