"""A sheet of images with their prompts, for looking at a model without picking favourites."""

import textwrap
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

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


def grid(images: Sequence[Array], prompts: Sequence[str], columns: int = 6, cell: int = 128) -> Image.Image:
    """Draws images (H, W, 3) in [0, 1], enlarged without smoothing, with the prompts under them."""
    caption_height, margin = 36, 8
    width, height = cell + margin, cell + caption_height + margin
    rows = -(-len(images) // columns)
    sheet = Image.new("RGB", (columns * width + margin, rows * height + margin), "#f4f4f4")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    for index, (image, prompt) in enumerate(zip(images, prompts, strict=True)):
        x, y = margin + index % columns * width, margin + index // columns * height
        picture = Image.fromarray((image.clip(0, 1) * 255).round().astype(np.uint8))
        sheet.paste(picture.resize((cell, cell), Image.Resampling.NEAREST), (x, y))
        draw.multiline_text((x, y + cell + 3), textwrap.fill(prompt, 22), fill="black", font=font, spacing=2)
    return sheet
