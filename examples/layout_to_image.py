"""Emoji in boxes: ``python examples/layout_to_image.py``."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from common import SIDE, arguments, builtin_vae, report, trained
from emoji import FEW, draw, scattered, sprites_of
from emoji_scenes.folders import read_images, write_images
from emoji_scenes.pixels import in_batches, pictures, shuffled
from emoji_scenes.render import Sprites
from emoji_scenes.seen import boxes_overlap, in_their_boxes
from PIL import Image

from latentdiff.viz import draw_boxes, image_grid

COUNT = 40_000


def scenes(sprites: Sprites, count: int, seed: int) -> Iterator[tuple[Image.Image, dict[str, Any]]]:
    """Up to three objects on white, with their exact boxes."""
    for number in range(count):
        scene = scattered(np.random.default_rng((seed, number)), FEW)
        yield pictures([draw(scene, sprites)])[0], {"objects": scene.objects(sprites)}


def main() -> None:
    """Train, measure on layouts that were never seen, and draw."""
    options = arguments(__doc__)
    sprites = sprites_of(FEW, options.work)
    train = write_images(options.work / "layouts" / "train", scenes(sprites, COUNT, 0))
    held_out = write_images(options.work / "layouts" / "held-out", scenes(sprites, 384, 1))
    pipe = trained("layout-to-image", train, builtin_vae(options.work), options)
    rows, truth = read_images(held_out, options.samples)
    layouts = [row["objects"] for row in rows]
    table = {}
    for scale in (1.0, 3.0):
        settings = {"image_size": (SIDE, SIDE), "guidance_scale": scale, "num_inference_steps": 20, "output_type": "np"}
        made = in_batches(lambda part, i: pipe(layouts[part], seed=i, **settings).images, len(layouts))  # noqa: B023
        table[f"guidance {scale:g}"] = made
    table["real images"] = truth
    other = shuffled(layouts)
    lines = {
        name: [
            in_their_boxes(images, layouts, sprites),
            in_their_boxes(images, other, sprites),
            boxes_overlap(images, layouts),
            boxes_overlap(images, other),
        ]
        for name, images in table.items()
    }
    columns = ["object in its box, %", "shuffled, %", "boxes' overlap, %", "shuffled, %"]
    report("layout-to-image", columns, lines, options.work)
    shown = []
    for image, layout in zip(pictures(made[:8]), layouts, strict=False):
        shown.append(draw_boxes(image.resize((128, 128)), layout, image_size=(SIDE, SIDE), font_size=9))
    image_grid(shown, columns=4, margin=4).save(options.work / "layout-to-image.png")


if __name__ == "__main__":
    main()
