"""What a diffusion model makes while it trains: a sheet to look at, and samples to measure."""

from __future__ import annotations

import math

import torch
from PIL import Image
from torch.utils.data import default_collate

from latentdiff.config import check
from latentdiff.data.images import Images
from latentdiff.data.latent_cache import Rows
from latentdiff.errors import BadFileError, InputError
from latentdiff.guidance.classifier_free import ClassifierFreeGuidance
from latentdiff.io.images import to_picture
from latentdiff.models.latent_colours import LatentColours
from latentdiff.seeding import SampleGenerators, array_generator
from latentdiff.training.diffusion.conditioners.base import Conditioner
from latentdiff.training.diffusion.conditioners.hybrid import text_part
from latentdiff.training.diffusion.conditioners.options import ConditionOptions
from latentdiff.training.engine.task import to_device
from latentdiff.training.recipes import DiffusionRecipe
from latentdiff.viz.denoising import DenoisingRecorder
from latentdiff.viz.grid import image_grid

GUIDANCE_SCALE = 3.0  # where conditions are dropped and the recipe says nothing
DISTILLED_STEPS = 4  # likewise, of a model that is distilled


class ValidationSampler:
    """Images of the pipeline that is trained, as the pipeline itself makes them.

    Args:
        conditioner: Its pipeline is what is trained.
        recipe: Gives the solver's steps, the strength of guidance and the seed.

    Raises:
        ConfigError: If guidance is wanted of a model that can't have it, or more steps than it knows.
    """

    def __init__(self, conditioner: Conditioner[ConditionOptions], recipe: DiffusionRecipe) -> None:
        self.conditioner, self.recipe = conditioner, recipe
        options, most = recipe.validation, conditioner.pipeline.scheduler.config.num_train_timesteps
        scale = options.guidance_scale
        check(
            scale in (None, 1.0) or conditioner.knows_null or conditioner.dropout > 0,
            f"validation.guidance_scale is {scale}, but this model knows no null condition; leave it out",
        )
        check(
            options.inference_steps <= most,
            f"validation.inference_steps is {options.inference_steps}; it must be 1 to {most}, which this model knows",
        )
        dropped = conditioner.dropout and recipe.distill is None  # a distilled model has learned guidance, too
        self.scale = scale if scale is not None else GUIDANCE_SCALE if dropped else 1.0
        few = recipe.distill is not None and not options.given("inference_steps")
        self.steps = DISTILLED_STEPS if few else options.inference_steps

    @torch.no_grad()
    def __call__(
        self, batch: dict[str, torch.Tensor], numbers: range, callback: DenoisingRecorder | None = None
    ) -> torch.Tensor:
        """Images (B, C, H, W) in [0, 1] of a batch of conditions; number n is drawn by the run's seed and n alone."""
        pipeline, recipe, count = self.conditioner.pipeline, self.recipe, len(numbers)
        device = pipeline.unet.device
        batch, kept = to_device(batch, device), torch.zeros(count, dtype=torch.bool, device=device)
        conditioning = self.conditioner(batch, kept, SampleGenerators(recipe.seed, numbers))
        guidance = []
        if self.scale != 1:
            null = self.conditioner(batch, ~kept, SampleGenerators(recipe.seed, numbers))
            guidance = [ClassifierFreeGuidance(null, self.scale)]
        pipeline.to(device).set_progress_bar_config(disable=True)  # with what isn't trained
        images: torch.Tensor = pipeline.generate_from(
            conditioning,
            recipe.data.resolution,
            recipe.data.resolution,
            batch_size=count,
            guidance=guidance,
            seed=recipe.seed + numbers.start,
            num_inference_steps=self.steps,
            output_type="pt",
            callback_on_step_end=callback,
        ).images
        return images


class SampleSheet:
    """A sheet of samples under the same conditions and seeds every time, made by the pipeline itself.

    The conditions are the recipe's prompts, or those of images spread over the data, which stand above the samples.

    Args:
        conditioner: Its pipeline is what is trained.
        images: Data to take conditions from.
        rows: What the conditioner reads of them.
        recipe: Gives the number of samples, their solver steps and the strength of guidance.
    """

    def __init__(
        self, conditioner: Conditioner[ConditionOptions], images: Images, rows: Rows, recipe: DiffusionRecipe
    ) -> None:
        self.sampler, self.originals = ValidationSampler(conditioner, recipe), list[Image.Image]()
        options = recipe.validation
        self.captions: list[str] = list(options.prompts)
        text = text_part(conditioner)
        check(not self.captions or text is not None, "validation.prompts is given, but the model takes no captions")
        if text is conditioner and self.captions:
            self.count, self.batch = len(self.captions), text.prompts(self.captions)
            return
        self.count = len(self.captions) or min(options.samples, len(images))
        starts = [number * len(images) // self.count for number in range(self.count)]
        chosen = [_first_readable(images, rows, start, recipe.seed) for start in starts]
        self.batch = default_collate([row for _, row, _ in chosen])
        self.originals = [picture for _, _, picture in chosen if picture is not None]
        if text is not None and self.captions:
            self.batch = {name: part for name, part in self.batch.items() if name != "text_states"}
            self.batch |= text.prompts(self.captions)
        elif text is not None and images.captions is not None:
            captions = [images.captions[i] for i, _, _ in chosen]
            self.captions = [caption[0] if isinstance(caption, list) else caption for caption in captions]

    def __call__(self) -> dict[str, Image.Image]:
        """Draw the pictures: "samples", the sheet, and with `validation.denoising` how they came about, "denoising"."""
        pipeline, options, recorder = self.sampler.conditioner.pipeline, self.sampler.recipe.validation, None
        if options.denoising:
            if LatentColours.of(pipeline.vae) is None:
                pipeline.fit_preview()
            every = math.ceil(self.sampler.steps / options.denoising)
            recorder = DenoisingRecorder(every, self.count, decode=False)
        images = self.sampler(self.batch, range(self.count), recorder)
        samples = [to_picture(image * 2 - 1) for image in images]
        captions = [""] * len(self.originals) + (self.captions or [""] * self.count)
        columns = self.count if any(captions) or self.originals else math.ceil(math.sqrt(self.count))
        pictures = {"samples": image_grid([*self.originals, *samples], columns=columns, captions=captions)}
        if recorder is not None:
            pictures["denoising"] = recorder.strip(scale=pipeline.vae_scale_factor)
        return pictures


def _first_readable(
    images: Images, rows: Rows, start: int, seed: int
) -> tuple[int, dict[str, torch.Tensor], Image.Image | None]:
    """The number of the first image from `start` on that can be decoded, its rows, and itself if it has any."""
    for number in range(start, start + len(images)):
        i = number % len(images)
        try:
            row = rows(i, images.views.centre(i), array_generator(seed, i))
            return i, row, to_picture(images[i]) if row else None
        except BadFileError as error:
            reason = str(error)
    raise InputError(f"{images.root}: no image can be decoded, the last: {reason}; give others")


def make_samples(
    conditioner: Conditioner[ConditionOptions], images: Images, rows: Rows, recipe: DiffusionRecipe
) -> SampleSheet | None:
    """The recipe's sheet of samples, None where there is to be none.

    Raises:
        ConfigError: If guidance is wanted of a model that can't have it.
        InputError: If a prompt is too long.
    """
    options = recipe.validation
    wanted = options.steps and (options.samples or options.prompts)
    return SampleSheet(conditioner, images, rows, recipe) if wanted else None
