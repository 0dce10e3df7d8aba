"""Inpainting of photographs: ``python examples/inpaint.py``."""

import numpy as np
from common import SIDE, Array, arguments, report, trained
from emoji_scenes.folders import read_images
from emoji_scenes.pixels import error_inside, filled, in_batches, pictures, reconstructed, shuffled
from photographs import first_stage, photographs

from latentdiff.registry import MASKS
from latentdiff.seeding import array_generator
from latentdiff.viz import image_grid

KINDS = ("thick", "box")


def main() -> None:
    """Train, measure on other photographs, and draw."""
    options = arguments(__doc__)
    train, held_out = photographs(options.work)
    pipe = trained("inpaint", train, first_stage(train, options), options)
    _, truth = read_images(held_out, options.samples)
    masks = [MASKS.get(KINDS[i % 2])((SIDE, SIDE), array_generator(0, i)) for i in range(len(truth))]
    holes = np.stack(masks)[..., None].astype(np.float64)

    def painted(images: Array, steps: int = 20) -> Array:
        settings = {"num_inference_steps": steps, "output_type": "np"}
        given = pictures(images)
        return in_batches(lambda part, i: pipe(given[part], masks[part], seed=i, **settings).images, len(images))

    mean, smooth = filled(truth, holes)
    model = painted(truth)
    # As if the surroundings had been shuffled: what is painted into the hole belongs to another photograph.
    strange = painted(np.stack(shuffled(truth)))
    columns = {
        "mean fill": mean,
        "smooth fill": smooth,
        "model, one step": painted(truth, steps=1),  # the mean of what it might be, so the least squared error
        "model": model,
        "model, shuffled": strange,
        "first stage": reconstructed(pipe.vae, truth),
    }
    report(
        "inpaint",
        list(columns),
        {"error in holes": [error_inside(images, truth, holes[..., 0]) for images in columns.values()]},
        options.work,
    )
    shown = [each[i] for i in range(0, len(truth), len(truth) // 4) for each in (truth * (1 - holes), model, truth)][
        :12
    ]
    image_grid(pictures(shown), columns=6, captions=["holes", "model", "true"] * 4, scale=2, margin=4).save(
        options.work / "inpaint.png"
    )


if __name__ == "__main__":
    main()
