"""Short runs of tiny first stages on drawn images."""

import json

import numpy as np
import toy
from PIL import Image, ImageDraw

from latentdiff.config import load_recipe
from latentdiff.training.first_stage.task import train_first_stage
from latentdiff.training.recipes import FirstStageRecipe

KL = toy.VAE
VQ = {**KL, "_class_name": "VQModel", "num_vq_embeddings": 64}
FSQ = {**{name: value for name, value in KL.items() if name != "latent_channels"}, "_class_name": "FSQModel"}
FSQ["levels"] = [4, 4, 2, 2]
RESIDUAL = {**VQ, "_class_name": "ResidualVQModel", "num_quantizers": 2}
ADVERSARIAL = {"loss.adversarial.discriminator": {"channels": 8, "layers": 2}}


def draw(folder, number, side=16):
    """Discs and squares on shaded grounds."""
    rng = np.random.default_rng(7)
    folder.mkdir()
    for i in range(number):
        ground = np.linspace(rng.integers(0, 90, 3), rng.integers(100, 256, 3), side).astype(np.uint8)
        image = Image.fromarray(np.repeat(ground[:, None], side, 1))
        left, top, size = [*rng.integers(0, side // 2, 2).tolist(), side // 2]
        shape = ImageDraw.Draw(image).ellipse if i % 2 else ImageDraw.Draw(image).rectangle
        shape((left, top, left + size, top + size), fill=tuple(rng.integers(0, 256, 3).tolist()))
        image.save(folder / f"{i:03}.png")
    return folder


def run(images, output, **options):
    base = {
        "data.resolution": 16,
        "model": KL,
        "train_batch_size": 4,
        "max_train_steps": 2,
        "optimizer.learning_rate": 3e-3,
    }
    base |= {"data.train_data_dir": str(images), "output_dir": str(output), "logging_steps": 1}
    return train_first_stage(load_recipe(FirstStageRecipe, None, {**base, **options}))


def log(folder, name):
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [line[name] for line in lines if name in line]
