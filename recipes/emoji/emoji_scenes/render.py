"""Draws objects and scenes: SVG to sprite, sprite to tinted sprite, sprites to an RGB frame."""

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import resvg_py
from numpy.typing import NDArray
from PIL import Image

from .colours import BACKGROUNDS, TINTS
from .grammar import Box, Scene

Array = NDArray[np.floating[Any]]

Sprites = dict[str, Image.Image]
"""An RGBA picture of each object by name, cropped to what is visible."""

SVG_ATTRIBUTES = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'


def sprite(body: str, resolution: int) -> Image.Image:
    """Renders a Noto icon (its SVG body, drawn for a 128-unit square) and crops it to what is visible.

    Returns:
        An RGBA image whose longer side is at most ``resolution`` pixels.
    """
    svg = f'<svg {SVG_ATTRIBUTES} viewBox="0 0 128 128">{body}</svg>'
    png = resvg_py.svg_to_bytes(svg_string=svg, width=resolution, height=resolution, skip_system_fonts=True)
    image = Image.open(io.BytesIO(png)).convert("RGBA")
    visible = image.getchannel("A").point(lambda alpha: 255 * (alpha > 8))
    return image.crop(visible.getbbox())


def render_sprites(bodies: Mapping[str, str], resolution: int) -> Sprites:
    """Renders every object once; scenes are drawn from these at smaller sizes."""
    return {name: sprite(body, resolution) for name, body in bodies.items()}


def tint(image: Image.Image, colour: str) -> Image.Image:
    """Recolours an RGBA sprite, keeping its light and shade.

    The sprite's luminance is stretched so that its 2nd and 98th percentiles become 0 and 1 and its median 0.5, and
    then read off the colour's ramp of shadow, mid tone and highlight. So most of any object gets the named colour.
    """
    pixels = np.asarray(image, dtype=np.float32)
    luminance = pixels[..., :3] @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    low, middle, high = np.percentile(luminance[pixels[..., 3] > 128], [2, 50, 98])
    # A flat object has no range to stretch: the margin keeps its small differences small.
    knots = [min(low, middle - 60), middle, max(high, middle + 60)]
    tone = np.interp(luminance, knots, [0.0, 0.5, 1.0])
    ramp = np.array(TINTS[colour], dtype=np.float32)
    channels = [np.interp(tone, [0.0, 0.5, 1.0], ramp[:, channel]) for channel in range(3)]
    return Image.fromarray(np.stack([*channels, pixels[..., 3]], axis=-1).round().astype(np.uint8), "RGBA")


def compose(scene: Scene, sprites: Mapping[str, Image.Image], resolution: int) -> Image.Image:
    """Draws ``scene`` as an RGB image of ``resolution`` pixels a side."""
    frame = Image.new("RGBA", (resolution, resolution), (*BACKGROUNDS[scene.background], 255))
    for thing, square in zip(scene.things, scene.boxes(), strict=True):
        image = sprites[thing.name]
        if thing.colour is not None:
            image = tint(image, thing.colour)
        frame.alpha_composite(*_clipped(*placed(image, square, resolution)))
    return frame.convert("RGB")


def placed(image: Image.Image, square: Box, resolution: int) -> tuple[Image.Image, tuple[int, int]]:
    """An object's picture as large as its square (centre x, centre y, side) has it, and where its corner lies."""
    centre_x, centre_y, side = square
    scale = side * resolution / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    corner = (round(centre_x * resolution - size[0] / 2), round(centre_y * resolution - size[1] / 2))
    return image.resize(size, Image.Resampling.LANCZOS), corner


def _clipped(image: Image.Image, corner: tuple[int, int]) -> tuple[Image.Image, tuple[int, int]]:
    """Cuts off what lies left of or above the frame, which ``alpha_composite`` refuses."""
    left, top = max(0, -corner[0]), max(0, -corner[1])
    return image.crop((left, top, image.width, image.height)), (max(0, corner[0]), max(0, corner[1]))
