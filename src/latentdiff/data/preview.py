"""A picture of a part of a data set: images with their boxes, label maps, and captions or classes."""

from __future__ import annotations

import torch
from PIL import Image

from latentdiff.data.check import MAX_CLASSES, AnnotationFormat
from latentdiff.data.images import Images
from latentdiff.data.label_maps import IGNORE_INDEX, read_training_map
from latentdiff.data.layouts import boxes_of
from latentdiff.errors import InputError, LatentDiffError
from latentdiff.io.arrays import read_values
from latentdiff.io.images import to_picture
from latentdiff.io.label_maps import resize_label_map
from latentdiff.viz.boxes import draw_boxes
from latentdiff.viz.grid import image_grid
from latentdiff.viz.label_maps import draw_label_map

SIDE = 224  # length of the longer side of an image in the picture


def preview(
    images: Images, annotations: AnnotationFormat, class_names: list[str] | None, count: int = 16
) -> Image.Image:
    """Images from all over the data, with boxes on them, label maps beside them and captions or classes below them.

    Args:
        images: The images; those that can't be decoded are left out.
        annotations: The format of boxes and label maps.
        class_names: The names of the classes in label maps; None if they have none.
        count: The largest number of images.

    Raises:
        InputError: If none of the chosen images can be decoded.
    """
    count = min(count, len(images))
    cells: list[Image.Image] = []
    captions: list[str] = []
    for number in (place * len(images) // count for place in range(count)):
        try:
            pictures = _pictures(images, number, annotations, class_names)
        except LatentDiffError:
            continue
        cells += pictures
        captions += [_caption(images, number), *("" for _ in pictures[1:])]
    if not cells:
        raise InputError(f"{images.root}: none of {count} images can be decoded, so there is no picture of them")
    return image_grid(cells, captions=captions, columns=4, margin=6)


def _pictures(
    images: Images, number: int, annotations: AnnotationFormat, class_names: list[str] | None
) -> list[Image.Image]:
    """An image with its boxes, and its label map if it has one."""
    values = torch.from_numpy(read_values(images.files[number], images.channels, images.value_range))
    picture = to_picture(values.permute(2, 0, 1))
    width, height = _fitted(*picture.size)
    picture = picture.resize((width, height), Image.Resampling.LANCZOS)
    if images.objects is not None:
        boxes, _ = boxes_of(images, number, annotations.box_format, annotations.pixels)
        shown = [{**item, "box": box} for item, box in zip(images.objects[number], boxes, strict=True)]
        picture = draw_boxes(picture, shown, box_format="xyxy")
    if images.label_maps is None:
        return [picture]
    num_classes = annotations.num_classes or MAX_CLASSES
    label_map = read_training_map(images.label_maps[number], num_classes, annotations.palette)
    drawn = draw_label_map(
        resize_label_map(label_map, (height, width)),
        num_classes,
        palette=annotations.palette,
        class_names=class_names,
        ignore_index=IGNORE_INDEX,
    )
    return [picture, drawn]


def _fitted(width: int, height: int) -> tuple[int, int]:
    """Width and height scaled so that the longer side has the length `SIDE`."""
    scale = SIDE / max(width, height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def _caption(images: Images, number: int) -> str:
    """The text below an image: its first caption, or the name or number of its class."""
    if images.captions is not None:
        text = images.captions[number]
        return str(text[0] if isinstance(text, list) else text)
    if images.labels is None:
        return ""
    label = images.labels[number]
    return images.class_names[label] if images.class_names else str(label)
