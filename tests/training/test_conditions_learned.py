"""Every conditioning learned on toy images: what is made follows the condition, and not a shuffled one."""

import numpy as np
import pytest
import toy
from PIL import Image

from latentdiff import DiffusionPipeline
from latentdiff.config import load_recipe
from latentdiff.training.first_stage.task import train_first_stage
from latentdiff.training.recipes import FirstStageRecipe

pytestmark = pytest.mark.slow

COLOURS = np.array([*toy.GROUNDS, *toy.COLOURS.values()])
OPTIONS = {
    "unet": {**toy.UNET, "block_out_channels": [32, 64]},
    "noise_schedule": {
        "beta_schedule": "scaled_linear",
        "beta_start": 0.0015,
        "beta_end": 0.0195,
        "prediction_type": "v_prediction",
        "timestep_spacing": "trailing",
    },
    "train_batch_size": 24,
    "optimizer.learning_rate": 2e-3,
    "optimizer.lr_scheduler": "cosine",
    "ema.decay": 0,
    "max_train_steps": 400,
    "checkpoint.steps": 10_000,
}
# What depends on places far apart is learned soon by a network that sees the image as 2x2 pixels, too.
THREE_LEVELS = {"block_out_channels": [32, 32, 64], "attention_levels": [False, True, True]}
OWN_OPTIONS = {
    "text-to-image": {"max_train_steps": 800},
    "class-to-image": {"max_train_steps": 800},
    "layout-to-image": {
        "max_train_steps": 700,
        "optimizer.learning_rate": 1e-3,
        "unet": {**toy.UNET, **THREE_LEVELS},
        "conditioning.layout_encoder": {**toy.ENCODER, "hidden_size": 32, "attention_head_dim": 16},
        "conditioning.layout_tokenizer": {"num_tokens": 64, "max_objects": 1},
    },
    "inpaint": {
        "conditioning.masks": {"box": 1, "thick": 1},
        "max_train_steps": 1000,
        "unet": {**toy.UNET, **THREE_LEVELS},
    },
}


@pytest.fixture(scope="module")
def vae(data, tmp_path_factory):
    """A first stage that was trained on the same images."""
    options = {
        "data.train_data_dir": str(data),
        "output_dir": str(tmp_path_factory.mktemp("first_stage")),
        "data.resolution": toy.SIDE,
        "model": {**toy.VAE, "block_out_channels": [16, 32], "norm_num_groups": 8},
        "train_batch_size": 24,
        "max_train_steps": 600,
        "optimizer.learning_rate": 4e-3,
        "optimizer.lr_scheduler": "cosine",
        "ema.decay": 0,
    }
    return train_first_stage(load_recipe(FirstStageRecipe, None, options)) / "vae"


def truth(data):
    """All scenes (N, 16, 16, 3) in [0, 1]."""
    return np.stack([np.asarray(Image.open(data / row["file_name"])) for row in toy.lines(data)]) / 255


def by_scene(images, data, keys):
    """Whether the nearest of all scenes is of the class, or class and box, that is asked for; (N, N) of 0 and 1."""
    errors = ((images[:, None] - truth(data)) ** 2).mean((2, 3, 4))
    said = [str([row[key] for key in keys]) for row in toy.lines(data)]
    return np.array([[said[made] == wanted for wanted in said] for made in errors.argmin(1)], float)


def by_pixel(images, data, part, merged=False):
    """The share of pixels whose colour, of five, is that of the scene; (N, N) of 0 to 1."""

    def number(pixels):
        nearest = ((pixels[..., None, :] - COLOURS / 255) ** 2).sum(-1).argmin(-1)
        return np.where(nearest < 2, 0, nearest) if merged else nearest

    made, wanted = number(images)[(slice(None), *part)], number(truth(data))[(slice(None), *part)]
    return (made[:, None] == wanted).mean((2, 3))


EVERYWHERE, HOLE = (slice(None), slice(None)), (slice(toy.HALF - 2, None), slice(toy.HALF - 2, None))
AGREEMENT = {
    "text-to-image": lambda images, data: by_scene(images, data, ["label"]),
    "class-to-image": lambda images, data: by_scene(images, data, ["label"]),
    "layout-to-image": lambda images, data: by_scene(images, data, ["label", "objects"]),
    "semantic-to-image": lambda images, data: by_pixel(images, data, EVERYWHERE, merged=True),
    "super-resolution": lambda images, data: by_pixel(images, data, EVERYWHERE),
    "inpaint": lambda images, data: by_pixel(images, data, HOLE),
}


@pytest.mark.parametrize("task", AGREEMENT)
def test_what_is_made_follows_the_condition(task, data, vae, tmp_path):
    if task == "layout-to-image":
        data = toy.write(tmp_path / "one_ground", grounds=[0])
    output = toy.train(task, data, vae, tmp_path / "run", **{**OPTIONS, **OWN_OPTIONS.get(task, {})})
    pipe = DiffusionPipeline.from_pretrained(output / "pipeline")
    pipe.set_progress_bar_config(disable=True)
    table = AGREEMENT[task](toy.call(task, pipe, data, toy.lines(data), num_inference_steps=20, seed=0), data)
    numbers = np.arange(len(table))
    if task == "inpaint":  # what lies in the hole altogether can't be known
        numbers = numbers[numbers % 4 != 3]
    # As if conditions had been shuffled: every colour and corner is another, and so are most backgrounds.
    others = (numbers + len(table) - 7) % len(table)
    own, shuffled = table[numbers, numbers].mean(), table[numbers, others].mean()
    print(f"{task}: agreement with its condition {own:.3f}, with shuffled conditions {shuffled:.3f}")
    assert own > 0.85 and shuffled < own - 0.3
