"""How a recipe means its data, for those who look at it without training."""

from __future__ import annotations

import json
from pathlib import Path

from latentdiff.data.check import AnnotationFormat
from latentdiff.data.images import Images, read_records
from latentdiff.data.label_maps import indexed_palette
from latentdiff.data.layouts import resolve_box_format
from latentdiff.data.options import DataOptions, FolderOptions
from latentdiff.training.data import channels_of
from latentdiff.training.recipes.stages import DiffusionRecipe, FirstStageRecipe


def open_to_check(options: DataOptions) -> Images:
    """The images with the channels that training would read: the recipe's, its first stage's, or the data's own.

    Raises:
        InputError: If there are none, or something is known of some of them only.
    """
    channels = options.channels if isinstance(options, FirstStageRecipe) else None
    if isinstance(options, DiffusionRecipe) and options.vae is not None:
        config = Path(options.vae) / "config.json"
        channels = json.loads(config.read_text())["in_channels"] if config.exists() else 3
    records = read_records(options)
    return Images(records, options.resolution, channels or channels_of(records.files), options.value_range)


def meaning_of(options: DataOptions, images: Images) -> tuple[AnnotationFormat, list[str] | None]:
    """How boxes and label maps are meant, and the names of the maps' classes."""
    recipe = options if isinstance(options, DiffusionRecipe) else None
    said = options if isinstance(options, (DiffusionRecipe, FolderOptions)) else FolderOptions(train_data_dir="-")
    box_format, pixels = resolve_box_format(images, said.box_format, said.box_units)
    section = recipe.segmentation_encoder if recipe is not None else {}
    names, palette = section.get("class_names"), section.get("palette")
    known = names or palette
    count = section.get("in_channels") or (None if known is None else len(known))
    if palette is None and count is not None and images.label_maps is not None:
        palette = indexed_palette(images.label_maps, count)
    return AnnotationFormat(box_format, pixels, count, palette), names
