"""Share of the image that masks cover, and a picture of some: python -m benchmarks masks [SHEET.png]."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from benchmarks.measuring import parser_of
from latentdiff.data.masks import coverage_statistics
from latentdiff.registry import MASKS
from latentdiff.seeding import array_generator

SIDE, DRAWS = 256, 2000
SHOWN, SHOWN_SIDE, GAP = 8, 96, 4


def cells(side: int) -> np.ndarray:
    """A map of twelve segments, which are the cells around random points."""
    points = array_generator(12).random((12, 2)) * side
    places = np.stack(np.mgrid[0:side, 0:side], axis=-1)
    return np.square(places[:, :, None] - points).sum(-1).argmin(-1)


def sheet() -> Image.Image:
    """A row for each generator, in the order of the registry; holes are black."""
    step = SHOWN_SIDE + GAP
    paper = np.ones((len(MASKS.names()) * step + GAP, SHOWN * step + GAP), dtype=bool)
    for row, name in enumerate(MASKS.names()):
        for column in range(SHOWN):
            mask = MASKS.get(name)(cells(SHOWN_SIDE), array_generator(0, column))
            top, left = row * step + GAP, column * step + GAP
            paper[top - 1 : top + SHOWN_SIDE + 1, left - 1 : left + SHOWN_SIDE + 1] = False
            paper[top : top + SHOWN_SIDE, left : left + SHOWN_SIDE] = ~mask
    return Image.fromarray(paper)


def main(words: Sequence[str]) -> None:
    parser = parser_of(__doc__)
    parser.add_argument("sheet", nargs="?")
    file = parser.parse_args(words).sheet
    for bounds in ((0.0, 1.0), (0.0, 0.5)):
        print(f"coverage of {DRAWS} masks of {SIDE}x{SIDE}, bounds {bounds}")
        for name in MASKS.names():
            numbers = coverage_statistics(MASKS.get(name), cells(SIDE), DRAWS, coverage=bounds)
            print(f"  {name:8}" + "".join(f"  {key} {value:.3f}" for key, value in numbers.items()))
    if file is not None:
        sheet().save(file, optimize=True)
