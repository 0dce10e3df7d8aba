"""Emoji recoloured and completed by `builtin:emoji`, which needs no training: ``python examples/image_to_image.py``."""

from dataclasses import replace

import numpy as np
from common import Array, arguments, report
from emoji import FEW, draw, sprites_of
from emoji_scenes import catalogue
from emoji_scenes.captions import canonical
from emoji_scenes.colours import TINTS
from emoji_scenes.grammar import Scene, Thing, jitter
from emoji_scenes.pixels import in_batches, pictures, shuffled
from emoji_scenes.render import Sprites
from emoji_scenes.scores import foreground_colour, nearest_colour

from latentdiff import AutoPipeline, TextToImagePipeline
from latentdiff.viz import image_grid

COLOURS = ("red", "yellow", "green", "blue", "purple", "brown", "black", "orange")
STRENGTHS = (0.3, 0.5, 0.7, 0.9)


def colour_of(image: Array) -> str:
    """The colour whose mid tone is nearest to the mean of the pixels that aren't white."""
    middle = {name: np.array(TINTS[name][1]) / 255 for name in COLOURS}
    return nearest_colour(foreground_colour(image, "white"), middle)


def agreement(images: Array, wanted: list[str]) -> float:
    """Share of images of the colour wanted, in per cent."""
    return 100 * float(np.mean([colour_of(image) == name for image, name in zip(images, wanted, strict=True)]))


def scenes(count: int, pair: bool) -> list[Scene]:
    """Recoloured objects on white: one in the middle, or two of which the left one has its own colour."""
    made, rng = [], np.random.default_rng(0)
    for _ in range(count):
        name, other = (FEW[i] for i in rng.choice(len(FEW), 2, replace=False))
        thing = Thing(name, COLOURS[rng.integers(len(COLOURS))])
        things = (Thing(other), thing) if pair else (thing,)
        moved = tuple(jitter("", rng) for _ in things)
        made.append(Scene("", things, relation="left of" if pair else None, jitter=moved))
    return made


def images_of(wanted: list[Scene], sprites: Sprites) -> Array:
    """The scenes drawn."""
    return np.stack([draw(scene, sprites) for scene in wanted])


def main() -> None:
    """Measure and draw."""
    options = arguments(__doc__)
    sprites = sprites_of(FEW, options.work)
    text = TextToImagePipeline.from_pretrained("builtin:emoji")
    text.set_progress_bar_config(disable=True)
    pipe = AutoPipeline.from_pipe(text, "image-to-image")

    def changed(images: Array, wanted: list[Scene], **settings: object) -> Array:
        prompts = [canonical(scene, catalogue.load()) for scene in wanted]
        given = {"num_inference_steps": 25, "output_type": "np", **settings}
        return in_batches(
            lambda part, i: pipe(list(pictures(images[part])), prompts[part], seed=i, **given).images, len(wanted)
        )

    # SDEdit: objects in their own colours, and prompts that ask for another.
    wanted = scenes(options.samples, pair=False)
    colours = [str(scene.things[0].colour) for scene in wanted]
    own = images_of([replace(scene, things=(Thing(scene.things[0].name),)) for scene in wanted], sprites)
    results = {0.0: own} | {strength: changed(own, wanted, strength=strength) for strength in STRENGTHS}
    table = {
        f"strength {strength:g}": [
            agreement(made, colours),
            agreement(made, shuffled(colours)),
            255 * float(np.abs(made - own).mean()),
        ]
        for strength, made in results.items()
    }
    real = images_of(wanted, sprites)
    table["drawn as asked"] = [
        agreement(real, colours),
        agreement(real, shuffled(colours)),
        255 * np.abs(real - own).mean(),
    ]
    report("image-to-image", ["colour asked for, %", "shuffled, %", "difference from the input"], table, options.work)

    # Masked sampling: the right half is made anew, by prompts that say what shall be there.
    wanted = scenes(options.samples, pair=True)
    colours = [str(scene.things[1].colour) for scene in wanted]
    full = images_of(wanted, sprites)
    half = full.shape[2] // 2
    given, mask = full.copy(), np.zeros(full.shape[1:3], bool)
    given[:, :, half:], mask[:, half:] = 1.0, True
    made = changed(given, wanted, mask_image=mask, strength=1.0)
    columns = {"empty": given, "model": made, "drawn as asked": full}
    table = {
        name: [
            agreement(images[:, :, half:], colours),
            agreement(images[:, :, half:], shuffled(colours)),
            255 * float(np.abs(images[:, :, :half] - given[:, :, :half]).max()),
        ]
        for name, images in columns.items()
    }
    report(
        "masked-sampling",
        ["colour asked for, %", "shuffled, %", "largest change of a known pixel"],
        table,
        options.work,
    )
    rows = [each[i] for i in range(6) for each in (own, *(results[s] for s in (0.5, 0.7, 0.9)), given, made)]
    captions = ["input", "0.5", "0.7", "0.9", "masked", "completed"] * 6
    image_grid(pictures(rows), columns=6, captions=captions, margin=4).save(options.work / "image-to-image.png")


if __name__ == "__main__":
    main()
