"""Emoji by the map of their classes: ``python examples/semantic_to_image.py``."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from common import Array, arguments, builtin_vae, report, trained
from emoji import FEW, draw, label_map, scattered, sprites_of
from emoji_scenes.folders import read_images, write_images
from emoji_scenes.pixels import error_inside, in_batches, pictures, psnr, reconstructed, shuffled
from emoji_scenes.render import Sprites
from emoji_scenes.seen import maps_overlap
from numpy.typing import NDArray
from PIL import Image

from latentdiff.viz import draw_label_map, image_grid

COUNT = 6000


def scenes(sprites: Sprites, count: int, seed: int) -> Iterator[tuple[Image.Image, dict[str, Any]]]:
    """Up to three objects on white, with the class of every pixel."""
    for number in range(count):
        scene = scattered(np.random.default_rng((seed, number)), FEW)
        yield pictures([draw(scene, sprites)])[0], {"label_map": label_map(scene, sprites, FEW)}


def main() -> None:
    """Train, measure on maps that were never seen, and draw."""
    options = arguments(__doc__)
    sprites = sprites_of(FEW, options.work)
    train = write_images(options.work / "maps" / "train", scenes(sprites, COUNT, 0))
    held_out = write_images(options.work / "maps" / "held-out", scenes(sprites, 384, 1))
    pipe = trained("semantic-to-image", train, builtin_vae(options.work), options)

    def with_maps(folder: Any, limit: int) -> tuple[Array, Array]:
        rows, images = read_images(folder, limit)
        return np.stack([np.asarray(Image.open(folder / row["label_map"])) for row in rows]), images

    maps, truth = with_maps(held_out, options.samples)
    seen_maps, seen = with_maps(train, 1000)
    colours = np.stack([seen[seen_maps == number].mean(0) for number in range(len(FEW) + 1)])

    def made(given: list[Any]) -> Array:
        settings = {"num_inference_steps": 20, "output_type": "np"}
        return in_batches(lambda part, i: pipe(given[part], seed=i, **settings).images, len(given))

    inside: NDArray[np.bool_] = maps > 0
    columns = {
        "mean colour of each class": colours[maps],
        "model": made(list(maps)),
        "model, shuffled": made(shuffled(list(maps))),
        "first stage": reconstructed(pipe.vae, truth),
    }
    lines = {
        "PSNR, dB": [psnr(images, truth) for images in columns.values()],
        "map's overlap, %": [maps_overlap(images, inside) for images in columns.values()],
        "error in objects": [error_inside(images, truth, inside) for images in columns.values()],
    }
    report("semantic-to-image", list(columns), lines, options.work)
    drawn = [draw_label_map(m.astype(int), len(FEW) + 1, legend=False) for m in maps[:6]]
    shown = [each for i in range(6) for each in (drawn[i], *pictures([columns["model"][i], truth[i]]))]
    image_grid(shown, columns=6, captions=["map", "model", "true"] * 6, scale=2, margin=4).save(
        options.work / "semantic-to-image.png"
    )


if __name__ == "__main__":
    main()
