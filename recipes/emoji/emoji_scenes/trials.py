"""The fixed scenes that an evaluation asks for, one list per row of its table."""

from collections.abc import Callable

import numpy as np

from .catalogue import Item
from .colours import BACKGROUNDS, TINTS
from .grammar import RELATIONS, Scene, Thing, held_out_colour, held_out_pair

Rows = dict[str, list[Scene]]


def trials(items: dict[str, Item], limit: int, seed: int = 0) -> Rows:
    """At most ``limit`` scenes a row.

    Rows: ``plain`` (objects as they are on white), ``background`` (on a colour), ``colour`` and ``colour, held out``
    (recoloured, in combinations that training shows or never shows), ``pair`` and ``pair, held out`` (two objects in
    their own colours on white, combinations likewise).
    """
    names = list(items)

    def some(row: int, draw: Callable[[np.random.Generator], Scene | None]) -> list[Scene]:
        """The first ``limit`` scenes of an endless stream in which ``None`` stands for an unwanted one."""
        rng, scenes = np.random.default_rng((seed, row)), list[Scene]()
        while len(scenes) < limit:
            scene = draw(rng)
            if scene is not None:
                scenes.append(scene)
        return scenes

    def name(rng: np.random.Generator) -> str:
        return names[rng.integers(len(names))]

    def background(rng: np.random.Generator) -> Scene:
        item = items[name(rng)]
        allowed = [colour for colour in BACKGROUNDS if colour not in ("white", item.shade)]
        return Scene("background", (Thing(item.name),), allowed[rng.integers(len(allowed))])

    def colour(held_out: bool) -> Callable[[np.random.Generator], Scene | None]:
        def draw(rng: np.random.Generator) -> Scene | None:
            thing = Thing(name(rng), list(TINTS)[rng.integers(len(TINTS))])
            if held_out_colour(thing.name, thing.colour) is not held_out:
                return None
            return Scene("colour", (thing,), "blue" if thing.colour == "white" else "white")

        return draw

    def pair(held_out: bool) -> Callable[[np.random.Generator], Scene | None]:
        def draw(rng: np.random.Generator) -> Scene | None:
            first, second = name(rng), name(rng)
            relation = list(RELATIONS)[rng.integers(len(RELATIONS))]
            if first == second or held_out_pair(first, second) is not held_out:
                return None
            return Scene("pair", (Thing(first), Thing(second)), relation=relation)

        return draw

    plain = np.random.default_rng((seed, 0)).permutation(len(names))[:limit]
    return {
        "plain": [Scene("plain", (Thing(names[i]),)) for i in plain],
        "background": some(1, background),
        "colour": some(2, colour(False)),
        "colour, held out": some(3, colour(True)),
        "pair": some(4, pair(False)),
        "pair, held out": some(5, pair(True)),
    }
