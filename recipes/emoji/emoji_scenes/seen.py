"""What is seen in images whose pixels are all known: which object is in a box, where objects are at all."""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .colours import BACKGROUNDS
from .grammar import Scene, Thing
from .pixels import Array
from .placed import FEW, MANY
from .render import Sprites, compose

LOOKS = list(product(MANY, BACKGROUNDS))
"""Every object on every background."""

Layouts = Sequence[Sequence[Mapping[str, Any]]]
"""The objects of each image, in boxes (left, top, width, height) in pixels."""


def nearest(images: Array, sprites: Sprites) -> list[tuple[str, str]]:
    """The object and background of each image: those of the nearest of all 264 drawings, by the mean squared error."""
    side = images.shape[1]
    scenes = [Scene("background", (Thing(name),), background) for name, background in LOOKS]
    gallery = np.stack([np.asarray(compose(scene, sprites, side)) for scene in scenes]) / 255
    return [LOOKS[int(np.square(gallery - image).mean((1, 2, 3)).argmin())] for image in images]


def drawn(name: str, box: Sequence[int], sprites: Sprites) -> Array:
    """An object alone in a box (left, top, width, height) on white: the pixels of the box."""
    image = sprites[name].resize((box[2], box[3]), Image.Resampling.LANCZOS)
    ground = Image.new("RGBA", image.size, "white")
    ground.alpha_composite(image)
    return np.asarray(ground.convert("RGB")) / 255


def in_their_boxes(images: Array, layouts: Layouts, sprites: Sprites, names: Sequence[str] = FEW) -> float:
    """Share of boxes, in per cent, whose content is nearest to the object asked for, of all drawn into the box."""
    right = []
    for image, layout in zip(images, layouts, strict=True):
        for item in layout:
            left, top, width, height = item["box"]
            part = image[top : top + height, left : left + width]
            errors = {name: np.square(drawn(name, item["box"], sprites) - part).mean() for name in names}
            right.append(min(errors, key=errors.__getitem__) == item["class"])
    return 100 * float(np.mean(right))


def not_white(images: Array) -> NDArray[np.bool_]:
    """The pixels (B, H, W) of objects on white."""
    return np.asarray(np.abs(images - 1).max(-1) > 0.15)


def boxes_overlap(images: Array, layouts: Layouts) -> float:
    """Mean intersection over union, in per cent, of the pixels that aren't white with the boxes' pixels."""
    shares = []
    for seen, layout in zip(not_white(images), layouts, strict=True):
        boxes = np.zeros_like(seen)
        for left, top, width, height in (item["box"] for item in layout):
            boxes[top : top + height, left : left + width] = True
        shares.append((seen & boxes).sum() / (seen | boxes).sum())
    return 100 * float(np.mean(shares))


def maps_overlap(images: Array, inside: NDArray[np.bool_]) -> float:
    """Intersection over union, in per cent, of the pixels that aren't white with those of objects in the maps."""
    seen = not_white(images)
    return 100 * float((seen & inside).sum() / (seen | inside).sum())
