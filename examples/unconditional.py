"""Scenes of emoji without any condition: ``python examples/unconditional.py``."""

import numpy as np
import torch
from class_to_image import data
from common import Array, arguments, builtin_vae, report, trained
from emoji import MANY, sprites_of
from emoji_scenes.features import Features
from emoji_scenes.folders import read_images
from emoji_scenes.pixels import in_batches, pictures, reconstructed

from latentdiff.evaluation.metrics import frechet_distance
from latentdiff.pipelines.codec import decode
from latentdiff.viz import image_grid


def main() -> None:
    """Train, compare the set of samples with one of images that were not trained on, and draw.

    The Fréchet distance is that of EfficientNet-lite0's features. Few images overrate it, all columns alike.
    """
    options = arguments(__doc__)
    train, held_out = data(options, sprites_of(MANY, options.work))
    pipe = trained("unconditional", train, builtin_vae(options.work), options)
    _, truth = read_images(held_out, options.samples)

    def made(part: slice, seed: int) -> Array:
        count = part.stop - part.start
        return np.asarray(pipe(count, seed=seed, num_inference_steps=25, output_type="np").images)

    def noise(part: slice, seed: int) -> Array:
        shape = (part.stop - part.start, pipe.vae.config.latent_channels, 16, 16)
        latents = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
        return decode(pipe.vae, latents).permute(0, 2, 3, 1).numpy()

    columns = {
        "training images": read_images(train, options.samples)[1],
        "first stage": reconstructed(pipe.vae, truth),
        "model": in_batches(made, len(truth)),
        "decoded noise": in_batches(noise, len(truth)),
    }
    features = Features()
    target = torch.from_numpy(features(list(truth)))
    distances = [frechet_distance(torch.from_numpy(features(list(images))), target) for images in columns.values()]
    report("unconditional", list(columns), {"Fréchet distance of features": distances}, options.work)
    image_grid(pictures(columns["model"][:24]), columns=8, margin=4).save(options.work / "unconditional.png")


if __name__ == "__main__":
    main()
