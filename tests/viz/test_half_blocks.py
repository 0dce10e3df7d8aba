"""Pictures in a terminal: two pixels a character."""

import re

import numpy as np
from PIL import Image

from latentdiff.viz.half_blocks import half_blocks

CELL = re.compile("\x1b\\[38;2;(\\d+);(\\d+);(\\d+);48;2;(\\d+);(\\d+);(\\d+)m▀")


def pixels(lines):
    """The rows of pixels that a terminal shows."""
    cells = [np.array(CELL.findall(line), int).reshape(-1, 2, 3) for line in lines]
    return np.concatenate([cell.swapaxes(0, 1) for cell in cells])


def test_each_character_shows_two_pixels():
    image = np.random.default_rng(0).integers(0, 256, (6, 5, 3), np.uint8)
    lines = half_blocks(Image.fromarray(image), 5, 3)
    assert len(lines) == 3 and (pixels(lines) == image).all()
    assert all(CELL.sub("", line) == "\x1b[0m" for line in lines)


def test_the_last_of_an_odd_number_of_rows_stands_twice():
    image = np.random.default_rng(0).integers(0, 256, (3, 2, 3), np.uint8)
    shown = pixels(half_blocks(Image.fromarray(image), 80, 24))
    assert (shown[:3] == image).all() and (shown[3] == image[2]).all()


def test_what_is_too_large_is_shrunk_and_what_is_grey_shown_in_grey():
    image = Image.fromarray(np.repeat(np.arange(0, 160, 10, dtype=np.uint8)[None], 8, 0))  # 16 wide, 8 high
    assert pixels(half_blocks(image, 15, 4)).shape[1] == 15
    assert pixels(half_blocks(image, 16, 4)).shape == (8, 16, 3)
    assert pixels(half_blocks(image, 16, 3)).shape == (6, 12, 3)
    half = pixels(half_blocks(image, 8, 99))
    assert half.shape == (4, 8, 3) and half[0, 0].tolist() == [5, 5, 5]
    assert pixels(half_blocks(image, 1, 1)).shape == (2, 1, 3)
