"""The data of a run: opened by its recipe, and what is odd about it said before the first step."""

from __future__ import annotations

import os
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator

from latentdiff.config import check
from latentdiff.data.bad_files import BadFiles
from latentdiff.data.images import Images, read_records
from latentdiff.data.options import DataOptions
from latentdiff.errors import BadFileError, LatentDiffWarning
from latentdiff.io.arrays import count_channels, size_of
from latentdiff.training.recipes.stages import Recipe

LOOKED_AT = 1000  # images, for the sizes; `latentdiff data check` looks at all


def open_images(options: DataOptions, channels: int | None = None) -> Images:
    """The images of a recipe; what was left out of them is said, and whether some are small.

    Args:
        options: The recipe.
        channels: Of the tensors; None for those that the images have.

    Raises:
        InputError: If there are none, or something is known of some of them only.
        ConfigError: If an option does not go with the data.
    """
    records = read_records(options)
    images = Images(records, options.resolution, channels or channels_of(records.files), options.value_range)
    if os.environ.get("RANK", "0") == "0":
        damaged = [f"{file} is damaged: {reason}; the rest of it is left out" for file, reason in records.damaged]
        for line in [*records.notes, *damaged, *small_images(images)]:
            warnings.warn(LatentDiffWarning(line), stacklevel=2)
    return images


def open_held_out(recipe: Recipe, channels: int) -> Images | None:
    """The images of `validation_data_dir`, if the recipe has any: of columns as those to train on, without annotations.

    Raises:
        InputError: As `open_images`.
    """
    if recipe.validation_data_dir is None or not recipe.validation_steps:
        return None
    source: dict[str, Any] = {"train_data_dir": recipe.validation_data_dir, "dataset_name": None}
    source |= {"dataset_config_name": None, "dataset_split": "train"}
    return open_images(replace(recipe, **source, annotations=None, label_maps=None), channels)


def small_images(images: Images) -> list[str]:
    """A line if there are images smaller than the resolution, told from a thousand of them."""
    places = np.unique(np.linspace(0, len(images) - 1, LOOKED_AT).astype(int))
    sizes = []
    for place in places:
        try:
            sizes.append(min(size_of(images.files[place])))
        except BadFileError:
            continue
    small = [side for side in sizes if side < images.resolution]
    if not small:
        return []
    looked_at = f"{len(sizes)} images" + ("" if len(places) == len(images) else " that were looked at")
    return [
        f"{len(small)} of {looked_at} are smaller than resolution {images.resolution} and will be enlarged; "
        f"the smallest has {min(small)} pixels a side"
    ]


def channels_of(files: Any) -> int:
    """The channels of the first image that can be decoded; 3 if none of the first can."""
    for file in files[:LOOKED_AT]:
        try:
            return count_channels(file)
        except BadFileError:
            continue
    return 3


def check_channels(images: Images) -> None:
    """ConfigError if the first image that can be decoded has other channels than the first stage takes."""
    for place, file in enumerate(images.files[:LOOKED_AT]):
        try:
            own = count_channels(file)
        except BadFileError:
            continue
        try:
            images[place]
        except BadFileError:
            check(
                own == images.channels,
                f"{file} has {own} channels, but the first stage takes {images.channels}; give one of such images",
            )
        return


def open_bad_files(recipe: Recipe, images: Images, accelerator: Accelerator) -> BadFiles:
    """Where this run says which files can't be decoded."""
    with accelerator.main_process_first():
        fresh = accelerator.is_main_process
        return BadFiles(Path(recipe.output_dir), len(images), recipe.max_bad_share, fresh=fresh)
