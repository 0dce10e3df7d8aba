"""Second stage: the latent diffusion model (section 3.2 of the paper), conditional on text or unconditional."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL

from latentdiff.data.folder import ImageFolder
from latentdiff.data.latent_cache import LatentRows, cache_latents, measure_scale
from latentdiff.errors import ConfigError, InputError
from latentdiff.io.files import atomic_folder, check_writable
from latentdiff.models.text_encoder import LDMTextEncoder
from latentdiff.models.tokenizer import load_tokenizer
from latentdiff.models.unet import UNet2DConditionModel
from latentdiff.pipelines.base import DiffusionPipeline
from latentdiff.pipelines.prompts import tokenize
from latentdiff.pipelines.text_to_image import TextToImagePipeline
from latentdiff.pipelines.unconditional import UnconditionalPipeline
from latentdiff.schedulers.ddim import DDIMScheduler
from latentdiff.seeding import generator
from latentdiff.training.loop import Task, make_accelerator, train
from latentdiff.training.losses import diffusion_loss, draw_noisy
from latentdiff.training.recipes import DiffusionRecipe


class DiffusionTask(Task):
    """Denoising of scaled latents, the UNet and the text encoder trained together.

    Args:
        pipeline: Its networks are trained in place; its first stage stays as it is.
        recipe: Gives caption dropout and the loss weighting.
    """

    def __init__(self, pipeline: DiffusionPipeline, recipe: DiffusionRecipe) -> None:
        super().__init__()
        self.unet = pipeline.unet.train()
        self.text_encoder = pipeline.text_encoder.train() if hasattr(pipeline, "text_encoder") else None
        # Held in a tuple so that the frozen first stage doesn't become a trained submodule.
        self._pipeline = (pipeline,)
        self.recipe, self.scale = recipe, pipeline.vae.config.scaling_factor
        self.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
        self.alphas_cumprod: torch.Tensor
        self.empty_ids: torch.Tensor
        self.register_buffer("alphas_cumprod", self.scheduler.alphas_cumprod.float(), persistent=False)
        if self.text_encoder is not None:
            empty = tokenize(pipeline.tokenizer, [""], pipeline.max_length)[0]
            self.register_buffer("empty_ids", empty, persistent=False)

    def forward(
        self, batch: dict[str, torch.Tensor], rng: torch.Generator
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The loss of posterior parameters `moments` (B, 2c, h, w) and captions `input_ids` (B, L)."""
        latents, noise, timesteps = draw_noisy(batch["moments"], self.scale, self.scheduler, rng)
        context = None
        if self.text_encoder is not None:
            dropped = torch.rand(len(latents), generator=rng).to(latents.device) < self.recipe.caption_dropout
            input_ids = torch.where(dropped[:, None], self.empty_ids, batch["input_ids"])
            context = self.text_encoder(input_ids).last_hidden_state
        noisy = self.scheduler.add_noise(latents, noise, timesteps)
        prediction = self.unet(noisy, timesteps, encoder_hidden_states=context).sample
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
            self._pipeline[0].save_pretrained(aside)


def make_pipeline(recipe: DiffusionRecipe) -> DiffusionPipeline:
    """The pipeline to train: loaded whole, or new networks around a trained first stage."""
    if recipe.pretrained_model_name_or_path is not None:
        pipeline: DiffusionPipeline = DiffusionPipeline.from_pretrained(recipe.pretrained_model_name_or_path)
        return pipeline
    parts: dict[str, Any] = {
        "vae": AutoencoderKL.from_pretrained(recipe.vae),
        "scheduler": DDIMScheduler(**recipe.noise_schedule),
    }
    try:
        parts["unet"] = UNet2DConditionModel(**recipe.unet)
        if not recipe.text_encoder:
            return UnconditionalPipeline(**parts)
        assert recipe.vocabulary is not None
        parts["text_encoder"] = LDMTextEncoder(**recipe.text_encoder)
        length = parts["text_encoder"].config.max_position_embeddings
        parts["tokenizer"] = load_tokenizer(recipe.vocabulary, length)
    except TypeError as error:
        raise ConfigError(f"the recipe's networks do not fit ({error}); see their documentation") from None
    return TextToImagePipeline(**parts)


def train_diffusion(recipe: DiffusionRecipe) -> Path:
    """Train a latent diffusion model on a folder of images; returns the output folder, which holds `pipeline/`."""
    check_writable(Path(recipe.output_dir) / "pipeline")
    accelerator = make_accelerator(recipe)
    torch.manual_seed(recipe.seed)
    pipeline = make_pipeline(recipe)
    images = ImageFolder(recipe.train_data_dir, recipe.resolution)
    columns = {}
    if isinstance(pipeline, TextToImagePipeline):
        if images.captions is None:
            raise InputError(
                f"{recipe.train_data_dir} has no metadata.jsonl with 'text'; a text-conditional model needs captions"
            )
        columns["input_ids"] = tokenize(pipeline.tokenizer, images.captions, pipeline.max_length).to(torch.int32)
    with accelerator.main_process_first():
        cache = cache_latents(
            Path(recipe.output_dir) / "latents",
            pipeline.vae.to(accelerator.device),
            images,
            random_flip=recipe.random_flip,
            autocast=recipe.mixed_precision == "bf16",
        )
    if recipe.pretrained_model_name_or_path is None:
        scale = measure_scale(cache, recipe.latent_scale_images, generator(recipe.seed))
        pipeline.vae.register_to_config(scaling_factor=scale)
    return train(DiffusionTask(pipeline, recipe), LatentRows(cache, **columns), recipe, accelerator)
