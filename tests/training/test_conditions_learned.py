"""Conditions learned on toy images: what is made follows its condition, and shuffled conditions destroy that."""

import numpy as np
import pytest
import torch
import toy
from PIL import Image

from latentdiff import DiffusionPipeline
from latentdiff.config import from_mapping
from latentdiff.training.first_stage import train_first_stage
from latentdiff.training.recipes import FirstStageRecipe

pytestmark = pytest.mark.slow

SHIFT = 17  # of 24 scenes: every colour and corner becomes another, and most backgrounds
COLOURS = np.array([*toy.GROUNDS, *toy.COLOURS.values()])
UNET = {**toy.UNET, "block_out_channels": [32, 64], "attention_levels": [True, True]}
STEPS = {"text-to-image": 500, "class-to-image": 500, "layout-to-image": 900}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return toy.write(tmp_path_factory.mktemp("data") / "images")


@pytest.fixture(scope="module")
def vae(data, tmp_path_factory):
    """A first stage that was trained on the same images."""
    options = {
        "train_data_dir": str(data),
        "output_dir": str(tmp_path_factory.mktemp("first_stage")),
        "resolution": toy.SIDE,
        "model": {**toy.VAE, "block_out_channels": [16, 32], "norm_num_groups": 8},
        "train_batch_size": 24,
        "max_train_steps": 600,
        "learning_rate": 4e-3,
        "lr_scheduler": "cosine",
        "ema_decay": 0,
    }
    return train_first_stage(from_mapping(FirstStageRecipe, options)) / "vae"


def truth(data):
    """All scenes (24, 16, 16, 3) in [0, 1]."""
    return np.stack([np.asarray(Image.open(data / row["file_name"])) for row in toy.lines(data)]) / 255


def by_scene(images, data, keys):
    """The nearest scene is of the class, or of the class and the box, that was asked for; (24, 24) of 0 and 1."""
    errors = ((images[:, None] - truth(data)) ** 2).mean((2, 3, 4))
    said = [str([row[key] for key in keys]) for row in toy.lines(data)]
    return np.array([[said[made] == wanted for wanted in said] for made in errors.argmin(1)], float)


def by_pixel(images, data, part, merged=False):
    """The share of pixels whose colour, of five, is that of the scene; (24, 24) of 0 to 1."""

    def number(pixels):
        nearest = ((pixels[..., None, :] - COLOURS / 255) ** 2).sum(-1).argmin(-1)
        return np.where(nearest < 2, 0, nearest) if merged else nearest

    rows, columns = part
    made, wanted = (number(pixels)[:, rows, columns] for pixels in (images, truth(data)))
    return (made[:, None] == wanted).mean((2, 3))


EVERYWHERE, HOLE = (slice(None), slice(None)), (slice(toy.HALF - 2, None), slice(toy.HALF - 2, None))
AGREEMENT = {
    "text-to-image": lambda images, data: by_scene(images, data, ["label"]),
    "class-to-image": lambda images, data: by_scene(images, data, ["label"]),
    "layout-to-image": lambda images, data: by_scene(images, data, ["label", "objects"]),
    "semantic-to-image": lambda images, data: by_pixel(images, data, EVERYWHERE, merged=True),
    "super-resolution": lambda images, data: by_pixel(images, data, EVERYWHERE),
    # What lies in the hole altogether can't be known, so scenes with the square in that corner don't count.
    "inpaint": lambda images, data: by_pixel(images, data, HOLE)[np.arange(24) % 4 != 3],
}


@pytest.mark.parametrize("task", AGREEMENT)
def test_what_is_made_follows_the_condition(task, data, vae, tmp_path):
    options = {"unet": UNET, "train_batch_size": 24, "learning_rate": 2e-3, "lr_scheduler": "cosine", "ema_decay": 0}
    options |= {"max_train_steps": STEPS.get(task, 400), "checkpointing_steps": 10_000}
    options |= {"masks": {"box": 1, "thick": 1}} if task == "inpaint" else {}
    output = toy.train(task, data, vae, tmp_path, **options)
    pipe = DiffusionPipeline.from_pretrained(output / "pipeline")
    pipe.set_progress_bar_config(disable=True)
    with torch.no_grad():
        images = toy.call(task, pipe, data, toy.lines(data), num_inference_steps=20, seed=0)
    table = AGREEMENT[task](images, data)
    rows = np.arange(24)[np.arange(24) % 4 != 3] if task == "inpaint" else np.arange(24)
    own, shuffled = table[range(len(rows)), rows].mean(), table[range(len(rows)), (rows + SHIFT) % 24].mean()
    print(f"{task}: agreement with its condition {own:.3f}, with shuffled conditions {shuffled:.3f}")
    assert own > 0.85 and shuffled < own - 0.3
