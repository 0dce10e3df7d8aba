"""Objects anywhere in an image: where each of them is, and which pixels are its, is known exactly."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from .grammar import Box, Thing
from .render import Sprites, placed

FEW = ("apple", "banana", "broccoli", "tree", "cat", "fish", "star", "rose", "car", "bus", "house", "umbrella")
MANY = (
    *FEW,
    *("penguin", "butterfly", "tulip", "lemon", "hamburger", "donut", "rocket", "guitar", "snowman", "key", "crown"),
    "heart",
)

Layout = list[dict[str, object]]
"""Objects of a class in boxes (left, top, width, height) in pixels, as layouts are given."""


@dataclass(frozen=True)
class Placed:
    """A scene for `compose`: each object in a square (centre x, centre y, side) in fractions of the image."""

    things: tuple[Thing, ...]
    squares: tuple[Box, ...]
    background: str = "white"

    def boxes(self) -> list[Box]:
        """The squares."""
        return list(self.squares)

    def rectangles(self, sprites: Sprites, side: int) -> Iterator[tuple[str, Image.Image, tuple[int, int]]]:
        """Each object's name, its picture as it is pasted, and where its top left corner lies."""
        for thing, square in zip(self.things, self.squares, strict=True):
            yield thing.name, *placed(sprites[thing.name], square, side)

    def objects(self, sprites: Sprites, side: int = 64) -> Layout:
        """The objects in their boxes, in an image of `side` pixels a side."""
        return [
            {"class": name, "box": [*corner, *image.size]} for name, image, corner in self.rectangles(sprites, side)
        ]


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


def scattered(rng: np.random.Generator, names: Sequence[str], background: str = "white") -> Placed:
    """One to three objects anywhere."""
    count = int(rng.integers(1, 4))
    things = tuple(Thing(names[i]) for i in rng.integers(len(names), size=count))
    return Placed(things, apart(rng, count), background)


def label_map(scene: Placed, sprites: Sprites, names: Sequence[str], side: int = 64) -> Image.Image:
    """The class at every pixel: 0 is the background, n is names[n - 1]."""
    classes = np.zeros((side, side), np.uint8)
    for name, image, (left, top) in scene.rectangles(sprites, side):
        solid = np.asarray(image.getchannel("A")) > 127
        classes[top : top + image.height, left : left + image.width][solid] = 1 + names.index(name)
    return Image.fromarray(classes)
