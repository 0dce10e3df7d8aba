"""Drawn satellite tiles of eight bands in 16 bits, by their land cover: ``python examples/satellite.py``.

The values are reflectances times 10000, as satellites' products have them. Pictures show three of the bands, and
measures see all.
"""

from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from both_stages import SIDE, Values, both_stages, shown, values_of, write_values
from common import arguments, report
from emoji_scenes.pixels import in_batches, shuffled
from numpy.typing import NDArray
from PIL import Image

from latentdiff.viz import image_grid

RANGE = (0, 5000)  # what becomes -1 and 1
BANDS = ("coastal", "blue", "green", "red", "red edge", "near infrared", "short-wave 1", "short-wave 2")
COVERS = {  # reflectances of each band
    "water": (600, 550, 450, 300, 200, 100, 50, 30),
    "forest": (250, 300, 500, 300, 1500, 3000, 1400, 600),
    "field": (350, 450, 800, 500, 2200, 4000, 2000, 1000),
    "soil": (900, 1100, 1500, 1900, 2200, 2600, 3200, 2800),
}
SPECTRA = np.array(list(COVERS.values()), dtype=np.float64)
VIEWS = {"true colours": ((3, 2, 1), 2500), "vegetation in red": ((5, 3, 2), 5000)}  # bands, and what is white


def field(rng: np.random.Generator) -> NDArray[np.floating[Any]]:
    """A smooth random field (SIDE, SIDE)."""
    coarse = Image.fromarray(rng.normal(size=(5, 5)).astype(np.float32))
    return np.asarray(coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def tiles(seed: int, count: int) -> Iterator[tuple[Values, dict[str, Any]]]:
    """Tiles (SIDE, SIDE, 8) in light of differing strength, with the land cover at every pixel."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        cover = np.argmax([field(rng) for _ in COVERS], axis=0).astype(np.uint8)
        light = rng.uniform(0.8, 1.2) * rng.normal(1, 0.03, (SIDE, SIDE, len(BANDS)))
        yield (SPECTRA[cover] * light).round().clip(0, 65535).astype(np.uint16), {"label_map": cover}


def covers(values: NDArray[Any]) -> NDArray[np.integer[Any]]:
    """The land cover (..., H, W) whose spectrum is the likest, whatever the light, of values (..., H, W, 8)."""
    found = values / np.linalg.norm(values, axis=-1, keepdims=True).clip(1)
    known = SPECTRA / np.linalg.norm(SPECTRA, axis=-1, keepdims=True)
    return np.asarray((found @ known.T).argmax(-1))


def vegetation(values: NDArray[Any]) -> float:
    """The mean normalised difference of near infrared and red (NDVI), over all pixels."""
    red, infrared = values[..., 3].astype(float), values[..., 5].astype(float)
    return float(((infrared - red) / (infrared + red).clip(1)).mean())


def trained(options: Namespace, count: int = 1000, **diffusion: Any) -> tuple[Any, dict[str, float]]:
    """The pipeline of `count` tiles, and the figures of its first stage; see `both_stages`."""
    folders = (
        write_values(Path(options.work) / f"satellite-{name}", tiles(seed, number))
        for seed, (name, number) in enumerate({"train": count, "other": max(16, count // 10)}.items())
    )
    conditioning = {"type": "semantic-to-image", "segmentation_encoder": {"class_names": list(COVERS)}}
    train, held_out = folders
    return both_stages("satellite", (train, held_out), RANGE, conditioning, options, **diffusion)


def samples(pipe: Any, maps: NDArray[np.uint8]) -> NDArray[np.floating[Any]]:
    """Values (B, SIDE, SIDE, 8) that a model makes for maps (B, SIDE, SIDE)."""

    def made(part: slice, seed: int) -> NDArray[np.floating[Any]]:
        images = pipe(list(maps[part]), seed=seed, num_inference_steps=25, output_type="np").images
        return values_of(np.asarray(images), RANGE)

    return in_batches(made, len(maps))


def main(options: Namespace | None = None, count: int = 1000) -> None:
    """Train both stages, measure whether all bands are those of the cover that was asked for, and draw two views."""
    options = options or arguments(__doc__)
    pipe, figures = trained(options, count)
    drawn = list(tiles(2, options.samples))
    maps = np.stack([known["label_map"] for _, known in drawn])
    columns = {"model": samples(pipe, maps), "drawn": np.stack([values for values, _ in drawn])}
    others = np.stack(shuffled(list(maps)))
    rows = {
        "cover asked for, %": [100 * float((covers(values) == maps).mean()) for values in columns.values()],
        "shuffled, %": [100 * float((covers(values) == others).mean()) for values in columns.values()],
        "NDVI": [vegetation(values) for values in columns.values()],
    }
    for place, band in enumerate(BANDS):
        rows[f"mean of {band}"] = [float(values[..., place].mean()) for values in columns.values()]
    report("satellite", list(columns), rows, options.work)
    print(f"first stage: PSNR {figures['psnr']:.1f} dB on tiles that were not trained on")
    chosen = [values for found in columns.values() for values in found[:8]]
    pictures = [shown(values[..., bands], 0, white) for bands, white in VIEWS.values() for values in chosen]
    image_grid(pictures, columns=8, margin=4).save(options.work / "satellite.png")


if __name__ == "__main__":
    main()
