"""Super-resolution of photographs by four: ``python examples/super_resolution.py``."""

from typing import Any

import numpy as np
from common import SIDE, Array, arguments, report, trained
from emoji_scenes.folders import read_images
from emoji_scenes.pixels import in_batches, pictures, psnr, reconstructed, sharpness, shuffled
from photographs import first_stage, photographs
from PIL import Image

from latentdiff.data.degradations import degrade
from latentdiff.viz import image_grid

FACTOR, DRAWS = 4, 8
DEGRADATION = "bsr"  # as in super-resolution.yaml: blur, noise and JPEG, which no interpolation can undo


def main() -> None:
    """Train, measure on other photographs, and draw."""
    options = arguments(__doc__)
    train, held_out = photographs(options.work)
    pipe = trained("super-resolution", train, first_stage(train, options), options)
    _, truth = read_images(held_out, options.samples)
    small = [
        Image.fromarray(degrade(np.asarray(image), DEGRADATION, FACTOR, seed=0, index=i))
        for i, image in enumerate(pictures(truth))
    ]
    bicubic = np.stack([np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BICUBIC)) / 255 for image in small])

    def upscaled(images: list[Any], seed: int = 0, steps: int = 20) -> Array:
        settings = {"num_inference_steps": steps, "output_type": "np"}
        return in_batches(lambda part, i: pipe(images[part], seed=seed + i, **settings).images, len(images))

    # After one step from noise stands the mean of what the image might be: the least squared error, but no sample.
    means = np.stack([upscaled(small, 10_000 * number, steps=1) for number in range(DRAWS)])
    samples = upscaled(small)
    columns = {
        "bicubic": bicubic,
        "one step": means[0],
        f"one step, mean of {DRAWS}": means.mean(0),
        "20 steps": samples,
        "20 steps, shuffled": upscaled(shuffled(small)),
        "first stage": reconstructed(pipe.vae, truth),
    }
    rows = {
        "PSNR, dB": [psnr(images, truth) for images in columns.values()],
        "sharpness": [sharpness(images, truth) for images in columns.values()],
    }
    report("super-resolution", list(columns), rows, options.work)
    shown = [image[i] for i in range(0, len(truth), len(truth) // 4) for image in (bicubic, samples, truth)][:12]
    image_grid(pictures(shown), columns=6, captions=["bicubic", "model", "true"] * 4, scale=2, margin=4).save(
        options.work / "super-resolution.png"
    )


if __name__ == "__main__":
    main()
