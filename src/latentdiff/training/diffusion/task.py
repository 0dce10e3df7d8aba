"""Second stage: the latent diffusion model (section 3.2 of the paper), with any condition or none."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import nn

from latentdiff.config import check
from latentdiff.data.bad_files import SkipBadFiles
from latentdiff.data.latent_cache import LatentRows, measure_scale
from latentdiff.errors import LatentDiffWarning, NonFiniteError
from latentdiff.io.files import atomic_file
from latentdiff.sampling import Denoiser
from latentdiff.schedulers.ddim import DDIMScheduler
from latentdiff.seeding import SampleGenerators, generator
from latentdiff.training.data import (
    check_first_stage_channels,
    encode_latents,
    open_bad_files,
    open_held_out,
    open_training_images,
)
from latentdiff.training.diffusion.adapters import (
    add_adapter,
    export_adapter,
    keep_frozen_out,
    with_merged_adapter,
)
from latentdiff.training.diffusion.build import make_conditioner
from latentdiff.training.diffusion.conditioners.base import Conditioner
from latentdiff.training.diffusion.conditioners.options import ConditionOptions
from latentdiff.training.diffusion.distillation import Consistency, prepare_distillation
from latentdiff.training.diffusion.losses import (
    by_variance,
    diffusion_loss,
    draw_latents,
    draw_timesteps,
    huber_widths,
    noisy_latents,
    target_of,
    timestep_weights,
)
from latentdiff.training.diffusion.measured import make_measures
from latentdiff.training.diffusion.publish import publish
from latentdiff.training.diffusion.samples import SampleSheet, make_samples
from latentdiff.training.engine.export import export_folder
from latentdiff.training.engine.freezing import freeze
from latentdiff.training.engine.loop import Run, train
from latentdiff.training.engine.resume_check import FIRST_STAGE, check_before_caches
from latentdiff.training.engine.session import Session, open_session
from latentdiff.training.engine.task import Task
from latentdiff.training.recipes import DiffusionRecipe
from latentdiff.types import DenoisingNetwork


class DiffusionTask(Task[dict[str, torch.Tensor]]):
    """Denoising of scaled latents; the UNet and what makes its condition are trained together.

    Args:
        conditioner: Its pipeline's networks are trained in place; the first stage stays as it is.
        recipe: Gives the loss, and what is trained of the UNet.
        samples: The sheet that is drawn at validation, if there is to be one.
        first_stage: What tells the first stage from others, as the latent cache says it.
        consistency: What a distillation has in place of the loss.
    """

    def __init__(
        self,
        conditioner: Conditioner[ConditionOptions],
        recipe: DiffusionRecipe,
        samples: SampleSheet | None = None,
        first_stage: str | None = None,
        consistency: Consistency | None = None,
    ) -> None:
        super().__init__()
        self.first_stage = first_stage
        self.samples, self.recipe, self.loss = samples, recipe, recipe.loss
        self.conditioner, self.pipeline = conditioner, conditioner.pipeline
        self.unet: DenoisingNetwork
        for name in ("unet", *conditioner.trains):
            setattr(self, name, getattr(self.pipeline, name).train())
        self.consistency = consistency
        if recipe.lora is not None or consistency is not None:
            self.requires_grad_(False)
            if recipe.lora is not None:
                add_adapter(self.get_submodule("unet"), recipe.lora)
            else:
                self.get_submodule("unet").requires_grad_(True)
            keep_frozen_out(self)
        if recipe.torch_compile:
            self.get_submodule("unet").compile()
        self.scheduler = DDIMScheduler.from_config(self.pipeline.scheduler.config)
        alphas, kind = self.scheduler.alphas_cumprod, self.scheduler.config.prediction_type
        if not self.scheduler.schedule.whole:  # near the image, float32 doesn't tell its levels apart
            alphas = torch.from_numpy(self.scheduler.schedule.alphas_cumprod)
        self.weights: torch.Tensor
        self.simple: torch.Tensor
        self.widths: torch.Tensor
        weights = timestep_weights(alphas, kind, self.loss.snr_gamma, self.loss.elbo_weight)
        check(
            bool(weights.isfinite().all()),
            f"loss.elbo_weight is {self.loss.elbo_weight}, but where all is noise, or nothing, the bound's weight of "
            f"this {kind} is infinite; set it to 0, or choose another prediction_type or noise_schedule",
        )
        self.register_buffer("weights", weights, persistent=False)
        self.register_buffer("simple", timestep_weights(alphas, kind, self.loss.snr_gamma, 0.0), persistent=False)
        self.register_buffer("widths", huber_widths(alphas, self.loss.huber_c), persistent=False)
        self.logvar = nn.Parameter(torch.full_like(weights, self.loss.logvar_init)) if self.loss.learn_logvar else None
        freeze(self, recipe.freeze)

    def forward(
        self, batch: dict[str, torch.Tensor], draws: SampleGenerators
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The loss of `moments` (B, 2c or c, h, w) from the cache and the conditioner's own rows.

        A UNet with `crop_condition` is told what `crop` (B, 3) each sample is.

        In evaluation no condition is dropped.
        """
        if self.consistency is not None:
            return self.consistency(self.unet, batch, draws), {}
        latents, noise = draw_latents(batch["moments"], self.pipeline.vae.config, draws, self.loss.noise_offset)
        timesteps = draw_timesteps(self.scheduler.schedule, draws, self.recipe.timesteps).to(latents.device)
        dropped = self.conditioner.draw_dropped(draws).to(latents.device) & self.training
        conditioning = self.conditioner(batch, dropped, draws)
        noisy = noisy_latents(self.scheduler, latents, noise, timesteps)
        prediction = Denoiser(self.unet, conditioning, crop=batch.get("crop"))(noisy, timesteps, 0.0)
        target = target_of(self.scheduler, latents, noise, timesteps)
        timesteps = timesteps.round().long()
        weights, widths = self.weights[timesteps], self.widths[timesteps]
        if self.logvar is None:
            return diffusion_loss(prediction, target, weights, self.loss.type, widths), {}
        logvar = self.logvar[timesteps]
        weights = by_variance(weights, self.simple[timesteps], logvar)
        loss = diffusion_loss(prediction, target, weights, self.loss.type, widths) + logvar.mean()
        return loss, {"logvar": logvar.detach().mean()}

    def export(self, folder: Path) -> None:
        """Write the whole pipeline as `folder/pipeline`, or the adapter as `folder/lora`."""
        lora, pipeline = self.recipe.lora, self.pipeline
        if lora is not None and not lora.merge:
            return export_adapter(self.get_submodule("unet"), folder)
        if lora is not None:
            pipeline = with_merged_adapter(pipeline)
        export_folder(folder / "pipeline", pipeline.save_pretrained, pipeline.components)

    def identity(self) -> dict[str, object]:
        """The first stage, whose latents are trained on."""
        return {FIRST_STAGE: self.first_stage}

    def validate(self, folder: Path, step: int) -> dict[str, float]:
        """Draw a sheet of samples."""
        if self.samples is not None:
            try:
                pictures = self.samples()
            except NonFiniteError as error:  # the loss will tell; the run is worth more than a sheet
                warnings.warn(LatentDiffWarning(f"no samples at step {step}: {error}"), stacklevel=2)
                return {}
            for name, picture in pictures.items():
                with atomic_file(folder / f"{name}-{step}.png") as aside:
                    picture.save(aside)
        return {}


def train_diffusion(recipe: DiffusionRecipe, run: Run = train, limit: int | None = None) -> Path:
    """Train a latent diffusion model on a folder of images; returns the output folder, with `pipeline/` or `lora/`.

    Args:
        recipe: What is to be trained, and how.
        run: `train`, or a rehearsal.
        limit: The number of images whose latents are encoded; None for all.

    Raises:
        ConfigError: If the recipe doesn't fit together, or doesn't fit the images.
        CheckpointError: If weights can't be loaded.
        InputError: If there are no images, or they lack what the condition is made of.
        HubError: If the upload at the end fails.
    """
    with open_session(recipe) as session:
        folder = run(*_prepared(recipe, session, limit))
        if recipe.push_to_hub and run is train and session.accelerator.is_main_process:
            publish(recipe, folder)
    return folder


def _prepared(
    recipe: DiffusionRecipe, session: Session, limit: int | None
) -> tuple[
    DiffusionTask,
    SkipBadFiles[dict[str, torch.Tensor]],
    DiffusionRecipe,
    Session,
    SkipBadFiles[dict[str, torch.Tensor]] | None,
]:
    """What is run: the task, its data, and the held out data that validation looks at."""
    accelerator = session.accelerator
    torch.manual_seed(recipe.seed)
    images = open_training_images(recipe, 3)
    conditioner = make_conditioner(recipe, images)
    pipeline = conditioner.pipeline
    consistency = None if recipe.distill is None else prepare_distillation(conditioner, recipe.distill)
    images.channels = pipeline.vae.config.in_channels
    check_first_stage_channels(images)
    held_out = open_held_out(recipe, images.channels)
    rows, held_out_rows = conditioner.rows(images), conditioner.rows(held_out) if held_out else None
    samples = make_samples(conditioner, held_out or images, held_out_rows or rows, recipe)
    reference = images, rows
    if held_out and held_out_rows and recipe.validation.compared_with == "held-out":
        reference = held_out, held_out_rows
    measures = make_measures(conditioner, *reference, recipe, accelerator)
    crops = bool(getattr(pipeline.unet.config, "crop_condition", False))
    check_before_caches(session.checkpoint, recipe, len(images))
    bad_files = open_bad_files(recipe, images, accelerator)
    latents = encode_latents(session, pipeline.vae, images, bad_files, limit, latents_dir=recipe.latents_dir)
    unseen, reference_latents = None, latents
    if held_out and held_out_rows:
        unseen_latents = encode_latents(session, pipeline.vae, held_out, bad_files, limit, held_out=True)
        reference_latents = unseen_latents if reference[0] is held_out else latents
        unseen_rows = LatentRows(unseen_latents, held_out_rows, recipe.seed, crops=crops)
        unseen = SkipBadFiles(unseen_rows, held_out.files, bad_files, recipe.seed)
    if recipe.pretrained_model_name_or_path is None or recipe.vae is not None:
        channels = pipeline.vae.config.latent_channels
        scale = recipe.latent_scale or measure_scale(
            latents, channels, recipe.latent_scale_images, generator(recipe.seed)
        )
        pipeline.vae.register_to_config(scaling_factor=scale)
    task = DiffusionTask(conditioner, recipe, samples, latents.first_stage, consistency)
    if measures is not None:
        task.measures = make_measures(conditioner, *reference, recipe, accelerator, reference_latents, measures)
    visits, mixture = LatentRows(latents, rows, recipe.seed, crops=crops), images.records.mixture
    items = SkipBadFiles(visits, images.files, bad_files, recipe.seed, mixture)
    return task, items, recipe, session, unseen
