"""Pictures as text of a terminal: each character shows two pixels, one above the other, in 24-bit colours."""

from __future__ import annotations

import numpy as np
from PIL import Image

UPPER_HALF = "\N{UPPER HALF BLOCK}"
PLAIN = "\x1b[0m"


def half_blocks(image: Image.Image, columns: int, lines: int) -> list[str]:
    """The lines of text that show an image; it is shrunk if it has more pixels than fit, and never enlarged.

    Args:
        image: The image, of any mode.
        columns: The most characters in a line.
        lines: The most lines, of two rows of pixels each.
    """
    picture = image.convert("RGB")
    share = min(1.0, columns / picture.width, 2 * lines / picture.height)
    size = [max(1, int(side * share)) for side in picture.size]
    pixels = np.asarray(picture if share == 1 else picture.resize((size[0], size[1]), Image.Resampling.BOX))
    if len(pixels) % 2:
        pixels = np.concatenate([pixels, pixels[-1:]])
    return ["".join(map(_block, above, below)) + PLAIN for above, below in zip(pixels[::2], pixels[1::2], strict=True)]


def _block(above: np.ndarray, below: np.ndarray) -> str:
    first, second = (";".join(map(str, colour.tolist())) for colour in (above, below))
    return f"\x1b[38;2;{first};48;2;{second}m{UPPER_HALF}"
