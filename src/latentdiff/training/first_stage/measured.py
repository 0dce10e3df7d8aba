"""What the metrics of a first stage's validation are of: reconstructions of images that are held out."""

from __future__ import annotations

import numpy as np
import torch
from accelerate import Accelerator

from latentdiff.config import check
from latentdiff.data.bad_files import BadFiles
from latentdiff.data.records import Records
from latentdiff.errors import BadFileError, InputError
from latentdiff.evaluation.image_sets import FileImages
from latentdiff.evaluation.pairs import USUAL_FILES, Perceptual
from latentdiff.pipelines.codec import decode, encode
from latentdiff.training.engine.measures import Measures, NamedImages, Plan
from latentdiff.training.recipes import FirstStageRecipe
from latentdiff.types import FirstStage

HELD_OUT = "held-out"


def make_measures(
    vae: FirstStage, held_out: Records, channels: int, recipe: FirstStageRecipe, bad: BadFiles, accelerator: Accelerator
) -> Measures:
    """The metrics of the recipe's validation, of the first readable of the images that are held out.

    Args:
        vae: What is trained.
        held_out: The images.
        channels: Their channels in training.
        recipe: Gives the metrics, and the files of LPIPS if it names them.
        bad: Hears of images that can't be decoded.
        accelerator: The run's processes.

    Raises:
        ConfigError: If a metric is unknown, or the images are not RGB.
        InputError: If it can't be computed, such as of so few images.
        CheckpointError: If the weights of its features are missing.
    """
    options, side, lpips = recipe.validation, recipe.data.resolution, recipe.loss.lpips
    check(
        channels == 3 and recipe.data.value_range is None,
        "validation.metrics are of RGB images of 8 bits, which these are not; leave them out",
    )
    images = readable(FileImages(held_out, side), options.count, bad)
    known = NamedImages(images, HELD_OUT)

    def make(numbers: range) -> torch.Tensor:
        pixels = torch.from_numpy(np.stack([known.pixels(number) for number in numbers]))
        return decode(vae, encode(vae, pixels.permute(0, 3, 1, 2).float().div(127.5).sub(1), scaled=True))

    plan = Plan(
        metrics=options.metrics,
        make=make,
        count=len(known),
        side=side,
        block=recipe.train_batch_size,
        reference=known,
        originals=known,
        reconstructions=True,
        perceptual=USUAL_FILES if lpips is None or lpips.preprocessing else Perceptual(lpips.vgg16, lpips.heads),
    )
    return Measures(plan, accelerator)


def readable(images: FileImages, count: int | None, bad: BadFiles) -> FileImages:
    """The first `count` images that can be decoded, or all of those.

    Raises:
        InputError: If there are fewer.
    """
    places: list[int] = []
    for place, file in enumerate(images.records.files):
        try:
            images.pixels(place)
            places.append(place)
        except BadFileError as error:
            bad.add(str(file), str(error))
        if len(places) == count:
            break
    if len(places) < (count or 2):
        raise InputError(
            f"validation.count is {count or 'all'}, but {len(places)} images are held out; lower it, or hold out more"
        )
    return images if len(places) == len(images) else FileImages(images.records.subset(places), images.resolution)
