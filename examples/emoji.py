"""Scenes of Noto emoji by the recipe of `builtin:emoji`: what is where is known to the pixel."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from common import SIDE, Array
from emoji_scenes import catalogue, sources
from emoji_scenes.colours import BACKGROUNDS
from emoji_scenes.grammar import Box, Thing
from emoji_scenes.render import Sprites, compose, placed, render_sprites
from PIL import Image

__all__ = ["BACKGROUNDS", "FEW", "MANY", "Placed", "draw", "label_map", "sprites_of"]

FEW = ("apple", "banana", "broccoli", "tree", "cat", "fish", "star", "rose", "car", "bus", "house", "umbrella")
MANY = (
    *FEW,
    *("penguin", "butterfly", "tulip", "lemon", "hamburger", "donut", "rocket", "guitar", "snowman", "key", "crown"),
    "heart",
)


@dataclass(frozen=True)
class Placed:
    """A scene for `compose`: each object in a square (centre x, centre y, side) in fractions of the image."""

    things: tuple[Thing, ...]
    squares: tuple[Box, ...]
    background: str = "white"

    def boxes(self) -> list[Box]:
        """The squares."""
        return list(self.squares)

    def rectangles(self, sprites: Sprites) -> Iterator[tuple[str, Image.Image, tuple[int, int]]]:
        """Each object's name, its picture as it is pasted, and where its top left corner lies."""
        for thing, square in zip(self.things, self.squares, strict=True):
            yield thing.name, *placed(sprites[thing.name], square, SIDE)

    def objects(self, sprites: Sprites) -> list[dict[str, Any]]:
        """The objects in boxes (left, top, width, height) in pixels, as layouts are given."""
        return [{"class": name, "box": [*corner, *image.size]} for name, image, corner in self.rectangles(sprites)]


def sprites_of(names: Sequence[str], work: Path) -> Sprites:
    """The drawings, downloaded from npm if need be."""
    items = {name: catalogue.load()[name] for name in names}
    return render_sprites(sources.svg_bodies(work / "downloads", items), 2 * SIDE)


def draw(scene: Any, sprites: Sprites) -> Array:
    """The scene as an image (H, W, 3) in [0, 1]."""
    return np.asarray(compose(scene, sprites, SIDE)) / 255


def apart(rng: np.random.Generator, count: int) -> tuple[Box, ...]:
    """`count` squares of 0.3 to 0.55 of the image's side that don't touch each other."""
    while True:
        squares: list[Box] = []
        for _ in range(count):
            side = float(rng.uniform(0.3, 0.55))
            x, y = rng.uniform(side / 2, 1 - side / 2, 2).tolist()
            if all(max(abs(x - u), abs(y - v)) >= (side + other) / 2 for u, v, other in squares):
                squares.append((x, y, side))
        if len(squares) == count:
            return tuple(squares)


def scattered(rng: np.random.Generator, names: Sequence[str]) -> Placed:
    """One to three objects anywhere on white."""
    count = int(rng.integers(1, 4))
    return Placed(tuple(Thing(names[i]) for i in rng.integers(len(names), size=count)), apart(rng, count))


def label_map(scene: Placed, sprites: Sprites, names: Sequence[str]) -> Image.Image:
    """The class at every pixel: 0 is the background, n is names[n - 1]."""
    classes = np.zeros((SIDE, SIDE), np.uint8)
    for name, image, (left, top) in scene.rectangles(sprites):
        solid = np.asarray(image.getchannel("A")) > 127
        classes[top : top + image.height, left : left + image.width][solid] = 1 + names.index(name)
    return Image.fromarray(classes)
