"""Drawn slices of a chest in 16 bits and one channel, with a nodule or without: ``python examples/slices.py``.

The values are those of scanners: Hounsfield units and 1024, in 12 of 16 bits. Nothing of the depth is lost, from the
files to the samples; what people look at are windows of it.
"""

from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from both_stages import SIDE, Values, both_stages, shown, values_of, write_values
from common import arguments, report
from emoji_scenes.pixels import in_batches
from numpy.typing import NDArray

from latentdiff.viz import image_grid

RANGE = (0, 2047)  # what becomes -1 and 1: air to dense bone
AIR, LUNG, TISSUE, BONE = 24, 200, 1064, 1700
WINDOWS = {"lung": (-76, 1424), "tissue": (864, 1264)}  # as centre -350 and width 1500, centre 40 and width 400
CLASSES = ("plain", "nodule")
FINER = 4  # points along a pixel's side, so that edges are soft


def disc(centre: tuple[float, float], radii: tuple[float, float]) -> NDArray[np.bool_]:
    """A filled ellipse (FINER * SIDE, FINER * SIDE); places and radii are shares of the side, down and to the right."""
    places = (np.arange(FINER * SIDE) + 0.5) / (FINER * SIDE)
    down, right = ((places - middle) / radius for middle, radius in zip(centre, radii, strict=True))
    return np.asarray(down[:, None] ** 2 + right[None] ** 2 <= 1)


def draw(rng: np.random.Generator, nodule: bool) -> Values:
    """One slice (SIDE, SIDE): a body of tissue with two lungs and a spine, and a nodule in one of the lungs."""
    values = np.full((FINER * SIDE, FINER * SIDE), float(AIR))
    wide, high = rng.uniform(0.42, 0.47), rng.uniform(0.34, 0.4)
    values[disc((0.5, 0.5), (high, wide))] = TISSUE + rng.normal(0, 15)
    lungs = [(0.48 + rng.normal(0, 0.01), 0.5 + side * wide * 0.5) for side in (-1, 1)]
    sizes = [(high * rng.uniform(0.62, 0.72), wide * rng.uniform(0.33, 0.38)) for _ in lungs]
    for place, size in zip(lungs, sizes, strict=True):
        values[disc(place, size)] = LUNG + rng.normal(0, 25)
    values[disc((0.5 + 0.72 * high, 0.5), (0.07, 0.06))] = BONE + rng.normal(0, 60)
    if nodule:
        which, angle = rng.integers(2), rng.uniform(0, 2 * np.pi)
        (down, right), (tall, broad) = lungs[which], sizes[which]
        share, radius = rng.uniform(0, 0.35), rng.uniform(0.04, 0.055)
        place = (down + share * tall * np.sin(angle), right + share * broad * np.cos(angle))
        values[disc(place, (radius, radius))] = TISSUE
    pixels = values.reshape(SIDE, FINER, SIDE, FINER).mean(axis=(1, 3)) + rng.normal(0, 12, (SIDE, SIDE))
    return pixels.round().clip(0, 4095).astype(np.uint16)


def slices(seed: int, count: int) -> Iterator[tuple[Values, dict[str, Any]]]:
    """Slices, every other one with a nodule."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        yield draw(rng, nodule=bool(number % 2)), {"label": CLASSES[number % 2]}


def has_nodule(values: NDArray[Any]) -> bool:
    """Whether a slice (SIDE, SIDE) has a dense spot with lung around it."""
    dense, lung = values > (LUNG + TISSUE) / 2, (values > 90) & (values < (LUNG + TISSUE) / 2)
    for row, column in zip(*np.nonzero(dense[3:-3, 3:-3]), strict=True):
        around = lung[row : row + 7, column : column + 7].copy()
        around[1:-1, 1:-1] = False
        if around.sum() >= 20:  # of 24
            return True
    return False


def main(options: Namespace | None = None, count: int = 1000) -> None:
    """Train both stages, measure by whether a nodule is where one was asked for, and draw in two windows."""
    options = options or arguments(__doc__)
    data, held_out = (
        write_values(Path(options.work) / f"slices-{name}", slices(seed, number))
        for seed, (name, number) in enumerate({"train": count, "other": max(16, count // 10)}.items())
    )
    conditioning = {"type": "class-to-image", "class_embedder": {"embed_dim": 32}}
    pipe, figures = both_stages("slices", (data, held_out), RANGE, conditioning, options)
    labels = [CLASSES[number % 2] for number in range(options.samples)]

    def made(part: slice, seed: int) -> NDArray[np.floating[Any]]:
        images = pipe(labels[part], seed=seed, num_inference_steps=25, output_type="np").images
        return values_of(np.asarray(images)[..., 0], RANGE)

    columns = {
        "model": in_batches(made, len(labels)),
        "drawn": np.stack([values for values, _ in slices(2, len(labels))]),
    }
    asked = np.array([label == "nodule" for label in labels])
    rows: dict[str, list[float]] = {}
    for name, wanted in (("nodule found where asked for, %", asked), ("where not, %", ~asked)):
        rows[name] = [100 * float(np.mean([has_nodule(v) for v in values[wanted]])) for values in columns.values()]
    lungs = {name: np.quantile(values, [0.01, 0.5, 0.999]) for name, values in columns.items()}
    for place, name in enumerate(("1 % of the values below", "half below", "99.9 % below")):
        rows[name] = [float(found[place]) for found in lungs.values()]
    report("slices", list(columns), rows, options.work)
    print(f"first stage: PSNR {figures['psnr']:.1f} dB, SSIM {figures['ssim']:.3f} on slices that were not trained on")
    chosen = [values for found in columns.values() for values in found[:8]]
    pictures = [shown(values, *bounds) for bounds in WINDOWS.values() for values in chosen]
    image_grid(pictures, columns=8, margin=4).save(options.work / "slices.png")


if __name__ == "__main__":
    main()
