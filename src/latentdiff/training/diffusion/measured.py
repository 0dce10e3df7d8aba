"""What the metrics of a diffusion model's validation are of: samples under the conditions of images, and the images."""

from __future__ import annotations

import torch
from accelerate import Accelerator
from torch.utils.data import default_collate

from latentdiff.config import check
from latentdiff.data.images import Images
from latentdiff.data.latent_cache import LatentCache, Rows
from latentdiff.evaluation.image_sets import FileImages, ImageSet, PlannedImages
from latentdiff.seeding import array_generator
from latentdiff.training.diffusion.conditioners.base import Conditioner
from latentdiff.training.diffusion.conditioners.options import ConditionOptions
from latentdiff.training.diffusion.samples import ValidationSampler
from latentdiff.training.engine.measures import Measures, NamedImages, Plan
from latentdiff.training.recipes import DiffusionRecipe


def make_measures(
    conditioner: Conditioner[ConditionOptions],
    images: Images,
    rows: Rows,
    recipe: DiffusionRecipe,
    accelerator: Accelerator,
    latents: LatentCache | None = None,
    checked: Measures | None = None,
) -> Measures | None:
    """The metrics of the recipe's validation, if it has any; without latents to check them before hours of encoding.

    Sample n has the condition of one of the reference's images: spread over them if they are more than the samples,
    else each in turn. Images that can't be decoded are left out.

    Args:
        conditioner: Its pipeline is what is trained.
        images: The reference.
        rows: What the conditioner reads of them.
        recipe: Gives the metrics and the number of samples.
        accelerator: The run's processes.
        latents: Their latent cache, which knows those that can't be decoded.
        checked: What was made without latents, whose networks are used.

    Raises:
        ConfigError: If a metric is unknown, or doesn't go with this model.
        InputError: If it can't be computed, such as of so few images.
        CheckpointError: If the weights of its features are missing.
    """
    if not recipe.validation.measures:
        return None
    options, sampler, side = recipe.validation, ValidationSampler(conditioner, recipe), images.resolution
    check(
        images.channels == 3 and recipe.data.value_range is None,
        "validation.metrics are of RGB images of 8 bits, which these are not; leave them out",
    )
    check(
        not images.views.cells,
        "validation.metrics are of the centre squares of images, which crop 'grid' does not train on; leave them out",
    )
    bad = () if latents is None else latents.bad
    good = [place for place in range(len(images)) if place not in bad]
    records = images.records.subset(good) if bad else images.records
    known: ImageSet = (
        FileImages(records, side) if latents is not None else PlannedImages(len(images), (side, side), "this run")
    )
    count, most = options.count, min(options.reference_count or len(good), len(good))
    chosen = [n * most // count if most >= count else n % most for n in range(count)]

    def make(numbers: range) -> torch.Tensor:
        places = {n: good[chosen[n]] for n in numbers}
        conditions = [rows(i, images.views.centre(i), array_generator(recipe.seed, n)) for n, i in places.items()]
        return sampler(default_collate(conditions), numbers)

    name, conditional = options.compared_with, conditioner.options.type != "unconditional"
    plan = Plan(
        metrics=options.metrics,
        make=make,
        count=count,
        side=side,
        block=recipe.train_batch_size,
        reference=NamedImages(known, name),
        reference_count=options.reference_count,
        originals=NamedImages(known, name, chosen) if conditional else None,
    )
    return Measures(plan, accelerator, checked)
