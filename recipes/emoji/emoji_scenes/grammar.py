"""Scenes: what is in an image, sampled so that every object is seen equally often and some combinations never."""

import hashlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .catalogue import Item
from .colours import BACKGROUNDS, TINTS

KINDS = ("plain",) * 7 + ("background",) * 4 + ("colour",) * 4 + ("place",) * 2 + ("pair",) * 3
"""The kind of image ``i`` is ``KINDS[i % 20]``: 35 % plain, 20 % background, 20 % colour, 10 % place, 15 % pair."""

SIZES = {"small": 0.4, "": 0.77, "big": 0.97}
"""The longer side of an object as a fraction of the frame; ``""`` is the size that no caption mentions."""

POSITIONS = {
    "in the top left corner": (0.25, 0.25),
    "in the top right corner": (0.75, 0.25),
    "in the bottom left corner": (0.25, 0.75),
    "in the bottom right corner": (0.75, 0.75),
    "on the left": (0.25, 0.5),
    "on the right": (0.75, 0.5),
    "at the top": (0.5, 0.25),
    "at the bottom": (0.5, 0.75),
    "in the center": (0.5, 0.5),
}
"""Where a small object's centre lies, as fractions of the frame from its top left corner."""

PAIR_SIZE = 0.45
RELATIONS = {"left of": (0.25, 0.5), "right of": (0.75, 0.5), "above": (0.5, 0.25), "below": (0.5, 0.75)}
"""Where the first of two objects lies; the second lies opposite."""

Box = tuple[float, float, float]


@dataclass(frozen=True)
class Thing:
    """An object by name, and its colour unless that is its own."""

    name: str
    colour: str | None = None


@dataclass(frozen=True)
class Scene:
    """Everything that an image shows, apart from a jitter of a pixel or so.

    Attributes:
        kind: One of ``KINDS``.
        jitter: Per object, offsets of centre x and y in frame fractions and a factor of its size.
    """

    kind: str
    things: tuple[Thing, ...]
    background: str = "white"
    size: str = ""
    position: str | None = None
    relation: str | None = None
    jitter: tuple[Box, ...] = field(default=(), compare=False)

    def boxes(self) -> list[Box]:
        """Centre x, centre y and side of each object's square, as fractions of the frame."""
        if self.relation is not None:
            x, y = RELATIONS[self.relation]
            nominal = [(x, y, PAIR_SIZE), (1 - x, 1 - y, PAIR_SIZE)]
        else:
            nominal = [(*(POSITIONS[self.position] if self.position else (0.5, 0.5)), SIZES[self.size])]
        jitter = self.jitter or ((0.0, 0.0, 1.0),) * len(nominal)
        return [(x + dx, y + dy, side * by) for (x, y, side), (dx, dy, by) in zip(nominal, jitter, strict=True)]

    def record(self) -> dict[str, Any]:
        """The JSON fields beside the caption in ``metadata.jsonl``."""
        return {
            "kind": self.kind,
            "objects": [thing.name for thing in self.things],
            "colours": [thing.colour for thing in self.things],
            "background": self.background,
            "size": self.size,
            "position": self.position,
            "relation": self.relation,
        }


def _one_in_ten(*words: str) -> bool:
    """The same fixed tenth of all keys on every machine and in every Python."""
    return hashlib.sha256("|".join(words).encode()).digest()[0] % 10 == 0


def held_out_colour(name: str, colour: str | None) -> bool:
    """Whether this object in this colour is kept out of the training data (a tenth of such pairs)."""
    return colour is not None and _one_in_ten("colour", name, colour)


def held_out_pair(first: str, second: str) -> bool:
    """Whether these two objects together, in either order, are kept out of the training data (a tenth of pairs)."""
    return _one_in_ten("pair", *sorted((first, second)))


def held_out(scene: Scene) -> bool:
    """Whether any combination in the scene is kept out of the training data."""
    names = [thing.name for thing in scene.things]
    return any(held_out_colour(t.name, t.colour) for t in scene.things) or (len(names) == 2 and held_out_pair(*names))


def sample(items: dict[str, Item], seed: int, index: int) -> Scene:
    """Image ``index`` of the training data drawn with ``seed``; never a held-out combination.

    Every kind walks through fresh permutations of all the objects, so counts differ by one at most.
    """
    names = list(items)
    kind = KINDS[index % len(KINDS)]
    turn = index // len(KINDS) * KINDS.count(kind) + KINDS[: index % len(KINDS)].count(kind)
    lap, place = divmod(turn, len(names))
    order = np.random.default_rng((seed, 1 << 32, KINDS.index(kind), lap)).permutation(len(names))
    return sample_kind(items, kind, names[order[place]], np.random.default_rng((seed, index)))


def sample_kind(items: dict[str, Item], kind: str, name: str, rng: np.random.Generator) -> Scene:
    """A random scene of this kind around the object ``name``."""
    names = [name]
    size, position, relation = "", None, None
    if kind == "pair":
        others = [other for other in items if other != name]
        while len(names) == 1 or held_out_pair(*names):
            names[1:] = [others[rng.integers(len(others))]]
        relation = list(RELATIONS)[rng.integers(len(RELATIONS))]
    elif kind == "place":
        # A third are about size alone; a position needs a small object, or there is no room to be anywhere.
        size = ("small", "big", "small", "small", "small", "small")[rng.integers(6)]
        position = None if size == "big" or rng.random() < 0.2 else list(POSITIONS)[rng.integers(len(POSITIONS))]
    recoloured = {"colour": 1.0, "place": 0.25, "pair": 0.5}.get(kind, 0.0)
    things = tuple(Thing(each, _colour(each, rng) if rng.random() < recoloured else None) for each in names)
    plain_background = {"plain": 1.0, "background": 0.0, "pair": 0.6}.get(kind, 0.5)
    background = _background(things, items, rng) if rng.random() >= plain_background else "white"
    if background in {thing.colour for thing in things}:
        background = _background(things, items, rng)
    moved = tuple(jitter(size, rng) for _ in things)
    return Scene(kind, things, background, size, position, relation, moved)


def jitter(size: str, rng: np.random.Generator) -> Box:
    """Up to 1.5 pixels of 64 in either direction, and a few per cent of size where the frame has room for more."""
    dx, dy = (rng.uniform(-1.5, 1.5, 2) / 64).tolist()
    return dx, dy, float(rng.uniform(0.94, 1.0 if size == "big" else 1.04))


def _colour(name: str, rng: np.random.Generator) -> str:
    """A colour that training may show the object in."""
    allowed = [colour for colour in TINTS if not held_out_colour(name, colour)]
    return allowed[rng.integers(len(allowed))]


def _background(things: tuple[Thing, ...], items: dict[str, Item], rng: np.random.Generator) -> str:
    """A background other than white against which every object can be seen."""
    taken = {thing.colour or items[thing.name].shade for thing in things}
    allowed = [colour for colour in BACKGROUNDS if colour not in taken and colour != "white"]
    return allowed[rng.integers(len(allowed))]
