"""Emoji in boxes: ``python examples/layout_to_image.py``."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from common import (
    SIDE,
    Array,
    arguments,
    builtin_vae,
    in_batches,
    pictures,
    read_images,
    report,
    shuffled,
    trained,
    write_images,
)
from emoji import FEW, draw, scattered, sprites_of
from emoji_scenes.render import Sprites
from PIL import Image

from latentdiff.viz import draw_boxes, image_grid

COUNT = 12_000
Layout = list[dict[str, Any]]


def scenes(sprites: Sprites, count: int, seed: int) -> Iterator[tuple[Image.Image, dict[str, Any]]]:
    """Up to three objects on white, with their exact boxes."""
    for number in range(count):
        scene = scattered(np.random.default_rng((seed, number)), FEW)
        yield pictures([draw(scene, sprites)])[0], {"objects": scene.objects(sprites)}


def drawn(name: str, box: Sequence[int], sprites: Sprites) -> Array:
    """An object alone in a box (left, top, width, height) on white: the pixels of the box."""
    image = sprites[name].resize((box[2], box[3]), Image.Resampling.LANCZOS)
    ground = Image.new("RGBA", image.size, "white")
    ground.alpha_composite(image)
    return np.asarray(ground.convert("RGB")) / 255


def read(images: Array, layouts: Sequence[Layout], sprites: Sprites) -> float:
    """Share of boxes, in per cent, whose content is nearest to the object asked for, of twelve drawn into the box."""
    right = []
    for image, layout in zip(images, layouts, strict=True):
        for item in layout:
            left, top, width, height = item["box"]
            part = image[top : top + height, left : left + width]
            errors = {name: np.square(drawn(name, item["box"], sprites) - part).mean() for name in FEW}
            right.append(min(errors, key=errors.__getitem__) == item["class"])
    return 100 * float(np.mean(right))


def overlap(images: Array, layouts: Sequence[Layout]) -> float:
    """Mean intersection over union, in per cent, of the pixels that aren't white with the boxes' pixels."""
    shares = []
    for image, layout in zip(images, layouts, strict=True):
        boxes = np.zeros((SIDE, SIDE), bool)
        for left, top, width, height in (item["box"] for item in layout):
            boxes[top : top + height, left : left + width] = True
        seen = np.abs(image - 1).max(-1) > 0.15
        shares.append((seen & boxes).sum() / (seen | boxes).sum())
    return 100 * float(np.mean(shares))


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
            read(images, layouts, sprites),
            read(images, other, sprites),
            overlap(images, layouts),
            overlap(images, other),
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
