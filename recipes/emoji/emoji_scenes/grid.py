"""A sheet of images with their prompts, for looking at a model without picking favourites."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from latentdiff.viz import image_grid

from .render import Array

PROMPTS = (
    "an apple",
    "a cat",
    "a rocket",
    "a guitar",
    "a hamburger",
    "a smiling face",
    "a butterfly on a yellow background",
    "a castle on a pink background",
    "a snowman on a blue background",
    "a penguin on an orange background",
    "a green apple",
    "a blue car",
    "a purple dog",
    "a red umbrella on a black background",
    "a pink elephant on a gray background",
    "a small star in the top left corner",
    "a small fish on the right",
    "a big pizza",
    "a banana left of an apple",
    "a sun above a house",
    "a red heart right of a blue heart",
    "a cat below an umbrella on a green background",
    "a yellow bus left of a green tree",
    "an octopus above a ship",
)
"""Chosen once, before any model was trained; some of them are held-out combinations."""


def sheet(images: Sequence[Array], prompts: Sequence[str]) -> Image.Image:
    """Images (H, W, 3) in [0, 1] of a few prompts, enlarged to about 128 pixels, with the prompts under them."""
    pictures = [Image.fromarray((image.clip(0, 1) * 255).round().astype(np.uint8)) for image in images]
    scale = max(1, 128 // pictures[0].width)
    return image_grid(pictures, columns=6, captions=prompts, scale=scale, margin=8, font_size=11)
