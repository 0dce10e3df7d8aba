"""What the sizes of `latentdiff init` need, as its table says: ``python benchmarks/presets.py [--sizes tiny small]``.

Three steps of each stage, of one image in fp32. "paper" takes a quarter of an hour and 10 GiB on two cores.
"""

import argparse
import os
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from latentdiff.training.first_stage.options import FirstStageDataOptions
from latentdiff.training.start.machine import GIB, Machine
from latentdiff.training.start.measure import measure
from latentdiff.training.start.presets import BY_NAME
from latentdiff.training.start.recipes import make_plan
from latentdiff.training.start.survey import survey


def main() -> None:
    """Print a line for each stage of each size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", nargs="+", choices=BY_NAME, default=list(BY_NAME))
    sizes = parser.parse_args().sizes
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        Path("images").mkdir()
        for number in range(16):
            pixels = np.random.default_rng(number).integers(0, 256, (256, 256, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(f"images/{number}.png")
        found = survey(FirstStageDataOptions(train_data_dir="images"))
        print("| size | stage | parameters, million | weights, gradients, moments, average, GiB | each image, GiB |")
        print("|---|---|---|---|---|")
        for name in sizes:
            preset = BY_NAME[name]
            single = replace(
                preset, first_stage=replace(preset.first_stage, batch=1), diffusion=replace(preset.diffusion, batch=1)
            )
            runs = measure(make_plan("images", found, single, Machine("cpu", 1024.0, bfloat16=False)))
            for stage, run in zip(("first stage", "diffusion"), runs, strict=True):
                image = run.needs["activations"] / GIB
                fixed = sum(run.needs.values()) / GIB - image
                print(f"| {name} | {stage} | {run.parameters / 1e6:.1f} | {fixed:.3f} | {image:.3f} |", flush=True)


if __name__ == "__main__":
    main()
