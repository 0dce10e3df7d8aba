"""The data of a run: opened by its recipe, and what is odd about it said before the first step."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from accelerate import Accelerator
from tqdm.auto import tqdm

from latentdiff.bulk.shards import Told, missing
from latentdiff.config import check
from latentdiff.data.bad_files import BadFiles
from latentdiff.data.check import AnnotationFormat
from latentdiff.data.encoding import LatentEncoding
from latentdiff.data.framing import frame
from latentdiff.data.images import Images, read_records
from latentdiff.data.label_maps import indexed_palette, paths_of
from latentdiff.data.latent_cache import LatentCache
from latentdiff.data.layouts import objects_of, resolve_box_format
from latentdiff.data.options import DataOptions
from latentdiff.data.records import Records
from latentdiff.errors import BadFileError, InputError, LatentDiffWarning
from latentdiff.io.arrays import count_channels, size_of
from latentdiff.io.stored import Stored
from latentdiff.training.diffusion.captions import captions_of, find_unfit, summary
from latentdiff.training.diffusion.conditioners.classes import labels_known
from latentdiff.training.diffusion.conditioners.options import ClassOptions, LayoutOptions, SemanticOptions, TextOptions
from latentdiff.training.diffusion.conditioners.text import text_limits
from latentdiff.training.engine.resume_check import recorded_first_stage
from latentdiff.training.engine.session import Session, agreed, together
from latentdiff.training.first_stage.options import FirstStageDataOptions
from latentdiff.training.recipes import ClassifierRecipe, DiffusionRecipe, Recipe
from latentdiff.types import FirstStage

LOOKED_AT = 1000  # images, for the sizes; `latentdiff data check` looks at all


def open_training_images(recipe: Recipe, channels: int | None = None) -> Images:
    """The images of a recipe; what was left out of them is said, and whether some are small.

    Images that the recipe's folder for validation has, too, are left out.

    Args:
        recipe: The run's recipe.
        channels: The channels of the tensors; None for those that the images have.

    Raises:
        InputError: If there are none, or something is known of some of them only.
        ConfigError: If an option does not go with the data.
    """
    return _open(recipe.data, recipe, channels)


def open_held_out(recipe: Recipe, channels: int) -> Images | None:
    """The images that are validated on, if the recipe has a folder of them.

    Their columns are those of the images to train on; they have no annotations.

    Raises:
        InputError: If there are none, or something is known of some of them only.
    """
    if recipe.validation.data_dir is None or not recipe.validation.steps:
        return None
    return _open(recipe.data.of_folder(recipe.validation.data_dir), recipe, channels, held_out=True)


def open_to_check(data: DataOptions, recipe: Recipe | None = None) -> Images:
    """The images with the channels that training would read: the recipe's, its first stage's, or the data's own.

    Args:
        data: The options of the data.
        recipe: The recipe that they are of, if there is one.

    Raises:
        InputError: If there are none, or something is known of some of them only.
    """
    channels = data.channels if isinstance(data, FirstStageDataOptions) else None
    if isinstance(recipe, DiffusionRecipe) and recipe.vae is not None:
        config = Path(recipe.vae) / "config.json"
        channels = json.loads(config.read_text(encoding="utf-8"))["in_channels"] if config.exists() else 3
    records = _read_to_train(data, recipe)
    return Images(records, data.resolution, channels or channels_of(records.files), data.value_range)


def open_to_encode(data: DataOptions, recipe: Recipe | None, channels: int) -> Images:
    """The images whose latents training caches: without those that the recipe, if there is one, validates on.

    Raises:
        InputError: If there are none, or something is known of some of them only.
    """
    records, views = frame(_read_to_train(data, recipe), data)
    images = Images(records, data.resolution, channels, data.value_range, views)
    check_colours(images)
    return images


def _read_to_train(data: DataOptions, recipe: Recipe | None) -> Records:
    """The records of a recipe's data, without those that it validates on."""
    if recipe is None:
        return read_records(data)
    held_out = recipe.validation.data_dir
    records = read_records(data, recipe.output_dir, held_out)
    if held_out is None or not recipe.validation.steps:
        return records
    return records.without(read_records(data.of_folder(held_out), recipe.output_dir))


def meaning_of(
    images: Images, data: DataOptions, recipe: Recipe | None = None
) -> tuple[AnnotationFormat, list[str] | None]:
    """How boxes and label maps are meant, and the names of the maps' classes; see `open_to_check`."""
    box_format, pixels = resolve_box_format(images, data.box_format, data.box_units)
    options = recipe.conditioning if isinstance(recipe, DiffusionRecipe) else None
    members = [] if options is None else options.members
    section = next((part.segmentation_encoder for part in members if isinstance(part, SemanticOptions)), {})
    names, palette = section.get("class_names"), section.get("palette")
    known = names or palette
    count = section.get("in_channels") or (None if known is None else len(known))
    if palette is None and count is not None and images.label_maps is not None:
        palette = indexed_palette(images.label_maps, count)
    return AnnotationFormat(box_format, pixels, count, palette), names


def check_views(images: Images, data: DataOptions) -> list[str]:
    """What would end a run, since images don't fit their crop or their buckets."""
    try:
        frame(images.records, data)
    except InputError as error:
        return [str(error)]
    return []


def check_condition(images: Images, recipe: Recipe | None) -> tuple[list[str], list[str]]:
    """What images lack that a recipe's condition is made of, and which captions don't fit its text encoder.

    Args:
        images: The images.
        recipe: The recipe; without one, captions are held against the tokenizer and the length of new text models.

    Returns:
        What would end the run, and what else there is to say.
    """
    options = recipe.conditioning if isinstance(recipe, DiffusionRecipe) else None
    needs = {
        ClassOptions: labels_known,
        LayoutOptions: objects_of,
        SemanticOptions: paths_of,
        TextOptions: captions_of,
    }
    try:
        for kind, needed in needs.items():
            if options is not None and any(isinstance(part, kind) for part in options.members):
                needed(images)
        if isinstance(recipe, ClassifierRecipe):
            labels_known(images)
    except InputError as error:
        return [str(error)], []
    if recipe is None and images.captions is None and (hint := images.hint("caption_column")):
        return [], [f"no captions are known{hint}"]
    asked = None if options is None else options.captions
    if images.captions is None or (options is not None and asked is None):
        return [], []
    text = asked or TextOptions()
    start = recipe.pretrained_model_name_or_path if isinstance(recipe, DiffusionRecipe) else None
    tokenizer, length = text_limits(text, start)
    unfit = find_unfit(images, tokenizer, length)
    if not unfit:
        return [], []
    line = summary(images, unfit)
    return ([line], []) if asked is not None and text.unfit_captions == "refuse" else ([], [line])


def _open(data: DataOptions, recipe: Recipe, channels: int | None, *, held_out: bool = False) -> Images:
    records = read_records(data, recipe.output_dir) if held_out else _read_to_train(data, recipe)
    records, views = frame(records, data)
    images = Images(records, data.resolution, channels or channels_of(records.files), data.value_range, views)
    check_colours(images)
    if os.environ.get("RANK", "0") == "0":
        damaged = [f"{file} is damaged: {reason}; the rest of it is left out" for file, reason in records.damaged]
        for line in [*records.notes, *damaged, *small_images(images)]:
            warnings.warn(LatentDiffWarning(line), stacklevel=3)
    return images


def small_images(images: Images) -> list[str]:
    """A line if there are images, or random parts, smaller than the resolution, told from a thousand images."""
    places = np.unique(np.linspace(0, len(images) - 1, LOOKED_AT).astype(int))
    sizes = []
    for place in places:
        try:
            sizes.append(min(size_of(images.files[place])))
        except BadFileError:
            continue
    share = images.views.zooms[0] if images.views.zooms else 1.0
    small = [side for side in sizes if share * side < images.resolution]
    if not small:
        return []
    looked_at = f"{len(sizes)} images" + ("" if len(places) == len(images) else " that were looked at")
    if share < 1:
        return [
            f"{len(small)} of {looked_at} have random crops smaller than resolution {images.resolution}, which will be "
            f"enlarged; of the smallest a crop may have {round(share * min(small))} pixels a side, raise data.min_crop"
        ]
    return [
        f"{len(small)} of {looked_at} are smaller than resolution {images.resolution} and will be enlarged; "
        f"the smallest has {min(small)} pixels a side"
    ]


def channels_of(files: Sequence[Stored]) -> int:
    """The channels of the first image that can be decoded; 3 if none of the first can."""
    for file in files[:LOOKED_AT]:
        try:
            return count_channels(file)
        except BadFileError:
            continue
    return 3


def check_colours(images: Images) -> None:
    """ConfigError if colours are to be changed of images that have none."""
    check(
        not images.views.jitter or images.channels == 3,
        f"data.colour_jitter is for RGB images, and these have {images.channels} channels; leave it out",
    )


def check_first_stage_channels(images: Images) -> None:
    """ConfigError if the first image that can be decoded has other channels than the first stage takes."""
    check_colours(images)
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
        return BadFiles(Path(recipe.output_dir), len(images), recipe.data.max_bad_share, fresh=fresh)


def encode_latents(
    session: Session,
    vae: FirstStage,
    images: Images,
    bad_files: BadFiles,
    limit: int | None = None,
    *,
    latents_dir: str | None = None,
    held_out: bool = False,
) -> LatentCache:
    """The latents of a run's images, encoded once by all its processes and kept in `latents/`.

    Args:
        session: The run.
        vae: The first stage, which comes to the device.
        images: The images to encode.
        bad_files: Where files are said that can't be decoded.
        limit: The number of images that are encoded; None for all.
        latents_dir: Where the latents of all images have been encoded already, if they have.
        held_out: Whether the images are validated on, and their latents kept in `validation-latents/`.

    Raises:
        ConfigError: If a run goes on with another first stage than it began with, or the recipe names latents that are
            of other images or another first stage.
        InputError: If too many images can't be decoded, or the disk has no room.
    """
    recipe, accelerator = session.recipe, session.accelerator
    own = session.output_dir / ("validation-latents" if held_out else "latents")
    work = LatentEncoding(
        Path(latents_dir or own).resolve(),  # it may be a link
        vae.to(accelerator.device),
        images if latents_dir else images.first(limit),
        bad_files,
        bfloat16=recipe.mixed_precision == "bf16",
    )
    check(
        recorded_first_stage(session.checkpoint) in (None, work.asked["first_stage"]),
        f"the latents of the run in {session.output_dir} are of another first stage; resume with the first stage that "
        "the run began with, or begin anew in another output_dir",
    )
    if not agreed(accelerator, lambda: work.cache() is not None):
        check(
            latents_dir is None,
            f"latents_dir is {latents_dir}, which {work.fault()}; make those of these images by this first stage with "
            "latentdiff encode, or leave it out",
        )
        agreed(accelerator, lambda: work.begin(replace=True))
        together(lambda: _encode_share(work, accelerator))
        agreed(accelerator, work.finish)
    found = work.cache()
    assert found is not None
    return found


def _encode_share(work: LatentEncoding, accelerator: Accelerator) -> None:
    """Encode this process's shards of those that are missing; the main process shows how far its own have come."""
    own = missing(work, work.shards()[accelerator.process_index :: accelerator.num_processes])
    images = sum(len(shard.items) for shard in own)
    with tqdm(total=images, desc="encoding images", disable=not accelerator.is_main_process) as bar:

        def tell(told: Told) -> None:
            bar.update(told.images)

        work.do(own, tell)
