"""What large images and mixed shapes cost in training: `python -m benchmarks views [--steps 20] [--workers 2]`.

The first table is of a first stage that is trained at 256 pixels (`--side`) on twenty images of 4000x4000 (`--large`),
by format and by the part that is seen: a random square of half to all of the image, or one of 256 pixels. Beside the
images a second stands their ratio to files of 256 pixels, and what the process's memory grew by between the first step
that counts and the last; workers' memory is theirs. The second table is of images of mixed shapes in aspect buckets,
against the centre squares of the same images: images and megapixels a second, and the share of the pixels that is cut
away. Kinds come in turn, round by round; printed are medians over rounds, of means over a round's steps.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import psutil
import torch
from PIL import Image

from benchmarks.measuring import parser_of
from latentdiff.cli.console import quiet_libraries
from latentdiff.config import load_recipe
from latentdiff.data.buckets import bucket_sizes, cut_share, nearest_bucket
from latentdiff.io.images import centre_box
from latentdiff.training.engine.failures import Interrupts
from latentdiff.training.engine.gradient import GradientAccumulator
from latentdiff.training.engine.loop import prepare
from latentdiff.training.first_stage.task import train_first_stage
from latentdiff.training.recipes import FirstStageRecipe

WARM_UP, UNITS = 3, 8  # steps that do not count; in how many parts buckets divide the resolution
RATIOS = [(1, 1), (4, 3), (3, 4), (3, 2), (2, 3), (16, 9), (9, 16), (5, 4), (185, 115)]  # width, height
WIDTHS = {"small": [32, 64, 128], "paper": [128, 256, 512]}


class Timed:
    """Stands in for `train`: times steps of weights that nobody keeps."""

    def __call__(self, task, items, recipe, session, held_out=None):
        model, optimizer, _ = prepare(task, recipe, session.accelerator)
        memory, self.pixels = psutil.Process().memory_info, 0
        hook = task.register_forward_pre_hook(lambda _, inputs: self.count(inputs[0]))
        with closing(GradientAccumulator(model, items, recipe, session.accelerator, 0)) as gradient:
            for step in range(recipe.max_train_steps + WARM_UP):
                if step == WARM_UP:
                    start, before, self.pixels = time.perf_counter(), memory().rss, 0
                gradient(Interrupts())  # which waits for the device
                optimizer.step()
                optimizer.zero_grad()
            seconds = time.perf_counter() - start
        hook.remove()
        images = recipe.max_train_steps * recipe.train_batch_size
        self.rate, self.megapixels = images / seconds, self.pixels / seconds / 1e6
        self.grown = (memory().rss - before) / 2**20
        return Path(recipe.output_dir)

    def count(self, batch: torch.Tensor) -> None:
        """Add the pixels of a batch."""
        self.pixels += len(batch) * batch.shape[-2] * batch.shape[-1]


def scene(height: int, width: int, seed: int) -> np.ndarray:
    """A picture with large and small structure, so that files have a photograph's sizes."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (max(2, height // 60), max(2, width // 60), 3), np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), np.int16)
    return np.clip(smooth + rng.integers(-8, 9, smooth.shape, np.int16), 0, 255).astype(np.uint8)


def write_large(folder: Path, count: int, large: int, side: int) -> None:
    """The same pictures small, and large in every format."""
    import tifffile

    for kind in ("small", "jpeg", "tiles", "arrays"):
        (folder / kind).mkdir()
    for number in range(count):
        pixels = scene(large, large, number)
        picture = Image.fromarray(pixels)
        picture.resize((side, side)).save(folder / "small" / f"{number}.jpg", quality=90)
        picture.save(folder / "jpeg" / f"{number}.jpg", quality=90)
        tifffile.imwrite(folder / "tiles" / f"{number}.tif", pixels, tile=(256, 256), photometric="rgb")
        np.save(folder / "arrays" / f"{number}.npy", pixels)


def write_mixed(folder: Path, count: int) -> list[tuple[int, int]]:
    """Pictures of mixed shapes of about 0.3 megapixels; their heights and widths."""
    (folder / "mixed").mkdir()
    sizes = []
    for number in range(count):
        across, down = RATIOS[number % len(RATIOS)]
        scale = (300_000 / across / down) ** 0.5
        height, width = round(down * scale), round(across * scale)
        Image.fromarray(scene(height, width, number)).save(folder / "mixed" / f"{number}.jpg", quality=90)
        sizes.append((height, width))
    return sizes


def measure(folder: Path, files: str, data: dict[str, object], options: argparse.Namespace) -> Timed:
    """One round of a kind."""
    widths = WIDTHS[options.widths]
    model = {
        "block_out_channels": widths,
        "down_block_types": ["DownEncoderBlock2D"] * len(widths),
        "up_block_types": ["UpDecoderBlock2D"] * len(widths),
        "norm_num_groups": 8,
    }
    place = {"train_data_dir": str(folder / files), "resolution": options.side, "num_workers": options.workers}
    run = {"train_batch_size": options.batch, "max_train_steps": options.steps, "report_to": "none"}
    timed = Timed()
    with quiet_libraries(quiet=True), tempfile.TemporaryDirectory() as output:
        values = {**run, "output_dir": output, "data": {**place, **data}, "model": model}
        train_first_stage(load_recipe(FirstStageRecipe, None, values), run=timed)
    return timed


def rounds(folder: Path, kinds: dict[str, tuple[str, dict]], options: argparse.Namespace) -> dict[str, list[Timed]]:
    """All rounds of all kinds, in turn."""
    found: dict[str, list[Timed]] = {name: [] for name in kinds}
    for number in range(options.rounds):
        for name in sorted(kinds, reverse=bool(number % 2)):  # none always comes first
            found[name].append(measure(folder, *kinds[name], options))
            line = f"round {number + 1}, {name}: {found[name][-1].rate:.2f} images a second"
            print(line, file=sys.stderr, flush=True)
    return found


def median(timed: list[Timed], name: str) -> float:
    return statistics.median(getattr(one, name) for one in timed)


def main(words: Sequence[str]) -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=20, help="steps of a round that count")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 2) // 2))
    parser.add_argument("--images", type=int, default=20, help="large images")
    parser.add_argument("--large", type=int, default=4000, help="pixels a side of them")
    parser.add_argument("--side", type=int, default=256, help="the resolution of training")
    parser.add_argument("--widths", choices=WIDTHS, default="small", help="of the first stage's levels")
    options = parser.parse_args(words)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{torch.get_num_threads()} threads"
    print(f"{options.rounds} rounds of {options.steps} steps of {options.batch}, {options.workers} workers, {device}\n")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_large(folder, options.images, options.large, options.side)
        half, share = {"crop": "random"}, options.side / options.large
        part = {"crop": "random", "min_crop": share, "max_crop": share}
        kinds = {"small files": ("small", {})}
        for name, files in {"JPEG": "jpeg", "tiled TIFF": "tiles", ".npy": "arrays"}.items():
            kinds |= {f"{name}, half to all": (files, half), f"{name}, {options.side} pixels": (files, part)}
        kinds["JPEG, centre"] = ("jpeg", {})
        found = rounds(folder, kinds, options)
        whole = median(found["small files"], "rate")
        print("| files, part | images a second | ratio | memory grew by, MiB |\n|---|---|---|---|")
        for name, timed in found.items():
            rate = median(timed, "rate")
            print(f"| {name} | {rate:.2f} | {rate / whole:.3f} | {median(timed, 'grown'):.0f} |", flush=True)
        sizes = write_mixed(folder, 90)
        kinds = {"squares": ("mixed", {}), "buckets": ("mixed", {"buckets": {"multiple": options.side // UNITS}})}
        found = rounds(folder, kinds, options)
        buckets = bucket_sizes(options.side, options.side // UNITS, 2.0)
        squares = [1 - (centre_box(*size)[2] - centre_box(*size)[0]) ** 2 / size[0] / size[1] for size in sizes]
        cut = {"squares": np.mean(squares)}
        cut["buckets"] = np.mean([cut_share(buckets[nearest_bucket(buckets, size)], size) for size in sizes])
        whole = median(found["squares"], "rate")
        print("\n| mixed shapes | images a second | ratio | megapixels a second | cut away |\n|---|---|---|---|---|")
        for name, timed in found.items():
            rate, pixels = median(timed, "rate"), median(timed, "megapixels")
            print(f"| {name} | {rate:.2f} | {rate / whole:.3f} | {pixels:.2f} | {cut[name]:.1%} |", flush=True)
