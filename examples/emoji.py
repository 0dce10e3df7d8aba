"""Scenes of Noto emoji by the recipe of `builtin:emoji`: what is where is known to the pixel."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from common import SIDE, Array
from emoji_scenes import catalogue, sources
from emoji_scenes.colours import BACKGROUNDS
from emoji_scenes.placed import FEW, MANY, Placed, label_map, scattered
from emoji_scenes.render import Sprites, compose, render_sprites

__all__ = ["BACKGROUNDS", "FEW", "MANY", "Placed", "draw", "label_map", "scattered", "sprites_of"]


def sprites_of(names: Sequence[str], work: Path) -> Sprites:
    """The drawings, downloaded from npm if need be."""
    items = {name: catalogue.load()[name] for name in names}
    return render_sprites(sources.svg_bodies(work / "downloads", items), 2 * SIDE)


def draw(scene: Any, sprites: Sprites) -> Array:
    """The scene as an image (H, W, 3) in [0, 1]."""
    return np.asarray(compose(scene, sprites, SIDE)) / 255
