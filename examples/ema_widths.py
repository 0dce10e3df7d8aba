"""The width of the average of the weights, chosen after training: ``python examples/ema_widths.py``.

One run of the model of `satellite.py` stores averages of two widths (Karras et al. 2024); models of all others are put
together of these, and measured.
"""

from argparse import Namespace

import numpy as np
from common import Array, arguments, report
from PIL import Image
from satellite import SPECTRA, covers, samples, tiles, trained

from latentdiff import DiffusionPipeline
from latentdiff.bench.plot import BOTTOM, COLOURS, HEIGHT, INK, LEFT, RIGHT, TOP, WIDTH, Canvas
from latentdiff.training.posthoc_ema import reconstruct_ema

WIDTHS = (0.04, 0.06, 0.08, 0.1, 0.14, 0.2, 0.25)
EMA = {"decay": 0.99, "profiles": [0.05, 0.1], "snapshot_steps": 75}


def angle(values: Array, maps: Array) -> float:
    """The mean angle in degrees between the spectra (B, H, W, 8) and those of the covers (B, H, W) asked for."""
    asked = SPECTRA[maps]
    cosine = (values * asked).sum(-1) / (np.linalg.norm(values, axis=-1) * np.linalg.norm(asked, axis=-1)).clip(1)
    return float(np.degrees(np.arccos(cosine.clip(-1, 1))).mean())


def plot(widths: tuple[float, ...], angles: list[float], drawn: float) -> Image.Image:
    """A line of angles by widths, and a dashed one at those of the drawn tiles."""
    canvas, top = Canvas(), 1.1 * max(angles)

    def place(width: float, value: float) -> tuple[float, float]:
        across = (width - widths[0]) / (widths[-1] - widths[0])
        return LEFT + across * (WIDTH - RIGHT - LEFT), HEIGHT - BOTTOM - value / top * (HEIGHT - BOTTOM - TOP)

    points = [place(*point) for point in zip(widths, angles, strict=True)]
    canvas.line([(LEFT, TOP), (LEFT, HEIGHT - BOTTOM), (WIDTH - RIGHT, HEIGHT - BOTTOM)], INK, 1.2)
    canvas.dashes(LEFT, WIDTH - RIGHT, place(0.1, drawn)[1], INK)
    canvas.text(WIDTH - RIGHT + 6, place(0.1, drawn)[1], "drawn")
    canvas.line(points, COLOURS[0], 1.6)
    for (x, y), width, value in zip(points, widths, angles, strict=True):
        canvas.dot(x, y, COLOURS[0])
        canvas.text(x, y - 12, f"{value:.2f}", anchor="mm")
        canvas.text(x, HEIGHT - BOTTOM + 14, f"{width:g}", anchor="mm")
    canvas.text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 14, "width of the average, sigma_rel", anchor="mm")
    canvas.text(12, 18, "angle between spectra, degrees")
    return canvas.finished()


def main(options: Namespace | None = None, count: int = 1000, widths: tuple[float, ...] = WIDTHS) -> None:
    """Train once, put models of all widths together, measure and draw them."""
    options = options or arguments(__doc__)
    run = options.work / "runs" / "satellite-ema"
    every = {"snapshot_steps": max(1, options.max_train_steps // 20)} if options.max_train_steps else {}
    pipe, _ = trained(options, count, run=run.name, ema={**EMA, **every})
    drawn = list(tiles(2, options.samples))
    truth, maps = np.stack([values for values, _ in drawn]), np.stack([known["label_map"] for _, known in drawn])
    columns = {"decay 0.99": samples(pipe, maps)}
    for width in widths:
        folder = options.work / "runs" / f"satellite-ema-{width:g}"
        if not folder.exists():
            reconstruct_ema(run, width, folder)
        pipe = DiffusionPipeline.from_pretrained(folder)
        pipe.set_progress_bar_config(disable=True)
        columns[f"{width:g}"] = samples(pipe, maps)
    columns["drawn"] = truth
    angles = [angle(values, maps) for values in columns.values()]
    found = [100 * float((covers(values) == maps).mean()) for values in columns.values()]
    report("ema-widths", list(columns), {"angle, degrees": angles, "cover asked for, %": found}, options.work)
    plot(widths, angles[1:-1], angles[-1]).save(options.work / "ema-widths.png")


if __name__ == "__main__":
    main()
