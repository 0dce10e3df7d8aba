"""Emoji by their class: ``python examples/class_to_image.py``."""

from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from common import arguments, builtin_vae, report, trained
from emoji import BACKGROUNDS, MANY, draw, sprites_of
from emoji_scenes.folders import read_images, write_images
from emoji_scenes.grammar import Scene, Thing, jitter
from emoji_scenes.pixels import in_batches, pictures, shuffled
from emoji_scenes.render import Sprites
from emoji_scenes.seen import LOOKS, nearest
from PIL import Image

from latentdiff.viz import image_grid

COUNT = 6000


def never_shown(name: str, background: str) -> bool:
    """A ninth of all pairs is kept out of the training data."""
    return (MANY.index(name) + list(BACKGROUNDS).index(background)) % 9 == 0


def scenes(sprites: Sprites, count: int, seed: int) -> Iterator[tuple[Image.Image, dict[str, Any]]]:
    """Objects in the middle, moved by a pixel or so, on any background that they may have."""
    allowed = [look for look in LOOKS if not never_shown(*look)]
    rng = np.random.default_rng(seed)
    for number in rng.integers(len(allowed), size=count):
        name, background = allowed[number]
        scene = Scene("background", (Thing(name),), background, jitter=(jitter("", rng),))
        yield pictures([draw(scene, sprites)])[0], {"label": name, "background": background}


def data(options: Namespace, sprites: Sprites) -> tuple[Path, Path]:
    """Folders to train on and to measure with."""
    folder = options.work / "classes"
    train = write_images(folder / "train", scenes(sprites, COUNT, 0))
    return train, write_images(folder / "held-out", scenes(sprites, 384, 1))


def accuracy(found: list[tuple[str, str]], labels: list[str]) -> float:
    """Share of images whose object is the one asked for, in per cent."""
    return 100 * float(np.mean([name == label for (name, _), label in zip(found, labels, strict=True)]))


def main() -> None:
    """Train, measure, and draw."""
    options = arguments(__doc__)
    sprites = sprites_of(MANY, options.work)
    train, held_out = data(options, sprites)
    pipe = trained("class-to-image", train, builtin_vae(options.work), options)
    rows, truth = read_images(held_out, options.samples)
    labels = [row["label"] for row in rows]
    table = {}
    for scale in (1.0, 3.0):
        settings = {"guidance_scale": scale, "num_inference_steps": 20, "output_type": "np"}
        made = in_batches(lambda part, i: pipe(labels[part], seed=i, **settings).images, len(labels))  # noqa: B023
        found = nearest(made, sprites)
        new = 100 * float(np.mean([never_shown(*look) for look in found]))
        table[f"guidance {scale:g}"] = [accuracy(found, labels), accuracy(found, shuffled(labels)), new]
    real = nearest(truth, sprites)
    table["real images"] = [accuracy(real, labels), accuracy(real, shuffled(labels)), 0.0]
    report("class-to-image", ["class, %", "shuffled class, %", "pairs never shown, %"], table, options.work)
    image_grid(pictures(made[:24]), columns=8, captions=labels[:24], margin=4).save(options.work / "class-to-image.png")


if __name__ == "__main__":
    main()
