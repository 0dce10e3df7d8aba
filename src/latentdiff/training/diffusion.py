"""Second stage: the latent diffusion model (section 3.2 of the paper), with any condition or none."""

from __future__ import annotations

from pathlib import Path

import torch

from latentdiff.data.folder import ImageFolder
from latentdiff.data.latent_cache import LatentRows, cache_latents, measure_scale
from latentdiff.io.files import atomic_folder, check_writable
from latentdiff.pipelines.base import DiffusionPipeline
from latentdiff.sampling import Denoiser
from latentdiff.schedulers.ddim import DDIMScheduler
from latentdiff.seeding import generator
from latentdiff.training.conditioners.base import Conditioner
from latentdiff.training.loop import make_accelerator, train
from latentdiff.training.losses import diffusion_loss, draw_noisy
from latentdiff.training.recipes import DiffusionRecipe
from latentdiff.training.second_stage import make_conditioner
from latentdiff.training.task import Task


class DiffusionTask(Task):
    """Denoising of scaled latents; the UNet and what makes its condition are trained together.

    Args:
        conditioner: Its pipeline's networks are trained in place; the first stage stays as it is.
        recipe: Gives condition dropout and the loss weighting.
    """

    def __init__(self, conditioner: Conditioner, recipe: DiffusionRecipe) -> None:
        super().__init__()
        self.conditioner, self.pipeline, self.recipe = conditioner, conditioner.pipeline, recipe
        for name in ("unet", *conditioner.trains):
            setattr(self, name, getattr(self.pipeline, name).train())
        self.dropout = conditioner.null_dropout() if recipe.dropout is None else recipe.dropout
        self.scheduler = DDIMScheduler.from_config(self.pipeline.scheduler.config)
        self.alphas_cumprod: torch.Tensor
        self.register_buffer("alphas_cumprod", self.scheduler.alphas_cumprod.float(), persistent=False)

    def forward(
        self, batch: dict[str, torch.Tensor], rng: torch.Generator
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The loss of `moments` (B, 2c or c, h, w) from the cache and the conditioner's own rows."""
        latents, noise, timesteps = draw_noisy(batch["moments"], self.pipeline.vae.config, self.scheduler, rng)
        dropped = torch.rand(len(latents), generator=rng).to(latents.device) < self.dropout
        conditioning = self.conditioner(batch, dropped, rng)
        noisy = self.scheduler.add_noise(latents, noise, timesteps)
        prediction = Denoiser(self.unet, conditioning)(noisy, timesteps, 0.0)
        kind = self.scheduler.config.prediction_type
        target = {
            "epsilon": noise,
            "v_prediction": self.scheduler.get_velocity(latents, noise, timesteps),
            "sample": latents,
        }[kind]
        alphas = self.alphas_cumprod[timesteps]
        return diffusion_loss(prediction, target, alphas, kind, self.recipe.snr_gamma), {}

    def export(self, folder: Path) -> None:
        """Write the whole pipeline as `folder/pipeline`."""
        with atomic_folder(folder / "pipeline") as aside:
            self.pipeline.save_pretrained(aside)


def train_diffusion(recipe: DiffusionRecipe) -> Path:
    """Train a latent diffusion model on a folder of images; returns the output folder, which holds `pipeline/`."""
    check_writable(Path(recipe.output_dir) / "pipeline")
    accelerator = make_accelerator(recipe)
    torch.manual_seed(recipe.seed)
    images = ImageFolder(recipe.train_data_dir, recipe.resolution)
    conditioner = make_conditioner(recipe, images)
    pipeline: DiffusionPipeline = conditioner.pipeline
    rows = conditioner.rows(images)
    with accelerator.main_process_first():
        cache = cache_latents(
            Path(recipe.output_dir) / "latents",
            pipeline.vae.to(accelerator.device),
            images,
            random_flip=recipe.random_flip,
            autocast=recipe.mixed_precision == "bf16",
        )
    if recipe.pretrained_model_name_or_path is None:
        channels = pipeline.vae.config.latent_channels
        scale = measure_scale(cache, channels, recipe.latent_scale_images, generator(recipe.seed))
        pipeline.vae.register_to_config(scaling_factor=scale)
    return train(DiffusionTask(conditioner, recipe), LatentRows(cache, rows, recipe.seed), recipe, accelerator)
