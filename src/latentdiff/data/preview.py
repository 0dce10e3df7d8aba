"""A picture of some of a data set, with all that is known of each image drawn on it or below it."""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image

from latentdiff.data.check import ANY_CLASS, Meant
from latentdiff.data.images import Images
from latentdiff.data.label_maps import IGNORE_INDEX, read_training_map
from latentdiff.errors import InputError, LatentDiffError
from latentdiff.io.arrays import read_values
from latentdiff.io.images import to_picture
from latentdiff.io.label_maps import resize_label_map
from latentdiff.viz.boxes import draw_boxes
from latentdiff.viz.grid import image_grid
from latentdiff.viz.label_maps import draw_label_map

SIDE = 224  # of the longer side of an image in the picture


def preview(images: Images, meant: Meant, class_names: list[str] | None, count: int = 16) -> Image.Image:
    """Images spread over the data, whole, with boxes on them, label maps beside them and captions or classes below.

    Args:
        images: Those that can't be decoded are left out.
        meant: How boxes and label maps are meant.
        class_names: Names of the classes of label maps, if they have any.
        count: Of the images, at most.

    Raises:
        InputError: If none of those chosen can be decoded.
    """
    count = min(count, len(images))
    cells: list[Image.Image] = []
    captions: list[str] = []
    for number in (place * len(images) // count for place in range(count)):
        try:
            cells += _cells(images, number, meant, class_names)
        except LatentDiffError:
            continue
        captions += [_caption(images, number), *[""] * (len(cells) - len(captions) - 1)]
    if not cells:
        raise InputError(f"{images.root}: none of {count} images can be decoded, so there is no picture of them")
    return image_grid(cells, captions=captions, columns=4, margin=6)


def _cells(images: Images, number: int, meant: Meant, class_names: list[str] | None) -> list[Image.Image]:
    values = torch.from_numpy(read_values(images.files[number], images.channels, images.value_range))
    picture = to_picture(values.permute(2, 0, 1))
    size, (width, height) = picture.size, _fitted(*picture.size)
    picture = picture.resize((width, height), Image.Resampling.LANCZOS)
    if images.objects is not None:
        image_size = (size[1], size[0]) if meant.pixels else None
        picture = draw_boxes(picture, images.objects[number], box_format=meant.box_format, image_size=image_size)
    if images.label_maps is None:
        return [picture]
    label_map = read_training_map(images.label_maps[number], meant.num_classes or ANY_CLASS, meant.palette)
    options: dict[str, Any] = {"class_names": class_names, "ignore_index": IGNORE_INDEX, "palette": meant.palette}
    small = resize_label_map(label_map, (height, width))
    return [picture, draw_label_map(small, meant.num_classes or ANY_CLASS, **options)]


def _fitted(width: int, height: int) -> tuple[int, int]:
    scale = SIDE / max(width, height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def _caption(images: Images, number: int) -> str:
    if images.captions is not None:
        text = images.captions[number]
        return str(text[0] if isinstance(text, list) else text)
    if images.labels is None:
        return ""
    label = images.labels[number]
    return images.class_names[label] if images.class_names else str(label)
