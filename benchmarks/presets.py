"""What the sizes of `latentdiff init` need, as its table says: `python -m benchmarks presets [--sizes tiny small]`.

Three steps of each stage, of one image in fp32. At a lower --resolution they take less time; what an image takes grows
with its pixels, but for the attention of the coarsest level, and is printed for the size's own resolution.
"""

import os
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.measuring import parser_of
from latentdiff.training.first_stage.options import FirstStageDataOptions
from latentdiff.training.start.machine import GIB, Machine
from latentdiff.training.start.measure import measure
from latentdiff.training.start.presets import BY_NAME
from latentdiff.training.start.recipes import make_plan
from latentdiff.training.start.survey import survey


def main(words: Sequence[str]) -> None:
    """Print a line for each stage of each size."""
    parser = parser_of(__doc__)
    parser.add_argument("--sizes", nargs="+", choices=BY_NAME, default=list(BY_NAME))
    parser.add_argument("--resolution", type=int, help="side of the images (default: that of each size)")
    options = parser.parse_args(words)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        Path("images").mkdir()
        for number in range(16):
            pixels = np.random.default_rng(number).integers(0, 256, (256, 256, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(f"images/{number}.png")
        given = {} if options.resolution is None else {"resolution": options.resolution}
        found = survey(FirstStageDataOptions(train_data_dir="images", **given))
        print("| size | stage | parameters, million | weights, gradients, moments, average, GiB | each image, GiB |")
        print("|---|---|---|---|---|")
        for name in options.sizes:
            preset = BY_NAME[name]
            single = replace(
                preset, first_stage=replace(preset.first_stage, batch=1), diffusion=replace(preset.diffusion, batch=1)
            )
            plan = make_plan("images", found, single, Machine("cpu", 1024.0, bfloat16=False))
            runs = measure(plan)
            for stage, run in zip(("first stage", "diffusion"), runs, strict=True):
                kept = run.needs["activations"] / GIB
                fixed = sum(run.needs.values()) / GIB - kept
                image = kept * (preset.resolution / plan.resolution) ** 2
                print(f"| {name} | {stage} | {run.parameters / 1e6:.1f} | {fixed:.3f} | {image:.3f} |", flush=True)
