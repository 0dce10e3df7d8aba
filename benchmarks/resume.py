"""Whether an interrupted training run ends with the weights of one that wasn't, on a device: a part of `gpu`.

Run `python -m benchmarks.resume DEVICE --json FILE`. Both stages take six steps at once, and three and three more.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

from benchmarks.measuring import Row, Spread, write_whole
from latentdiff.cli.console import quiet_libraries
from latentdiff.config import from_mapping
from latentdiff.training.diffusion.task import train_diffusion
from latentdiff.training.first_stage.task import train_first_stage
from latentdiff.training.recipes import DiffusionRecipe, FirstStageRecipe

SIDE, IMAGES, STEPS = 32, 16, 6
VAE = {
    "block_out_channels": [16, 32],
    "down_block_types": ["DownEncoderBlock2D"] * 2,
    "up_block_types": ["UpDecoderBlock2D"] * 2,
    "latent_channels": 4,
    "norm_num_groups": 8,
}
UNET = {
    "block_out_channels": [32, 64],
    "layers_per_block": 1,
    "attention_levels": [False, True],
    "num_head_channels": 32,
    "norm_num_groups": 8,
}
Options = dict[str, object]


def options(folder: Path, output: str, steps: int, resume: bool) -> Options:
    """The options that both stages share."""
    return {
        "output_dir": str(folder / output),
        "data": {"train_data_dir": str(folder / "images"), "resolution": SIDE},
        "train_batch_size": 4,
        "max_train_steps": steps,
        "checkpoint": {"steps": STEPS // 2},
        "report_to": "none",
        **({"resume_from_checkpoint": "latest"} if resume else {}),
    }


def largest_difference(one: Path, other: Path) -> float:
    """Of the weights in two folders, file by file."""
    found = 0.0
    for file in sorted(one.rglob("diffusion_pytorch_model.safetensors")):
        left, right = load_file(file), load_file(other / file.relative_to(one))
        found = max(found, *(float((left[name] - right[name]).abs().max()) for name in left))
    return found


def compared(stage: str, device: str, folder: Path, run: Callable[[str, int, bool], Path]) -> Row:
    """The row of a stage."""
    start = time.perf_counter()
    whole = run(f"{stage}-whole", STEPS, False)
    seconds = time.perf_counter() - start
    run(f"{stage}-parts", STEPS // 2, False)
    parts = run(f"{stage}-parts", STEPS, True)
    apart = largest_difference(whole, parts)
    note = "the same weights, bit for bit" if apart == 0 else f"weights differ by up to {apart:.1e}"
    return Row("resume", f"{stage}, {STEPS} steps on {device}", "latentdiff", Spread.of([seconds]), note=note)


def main(device: str, path: Path) -> None:
    """Measure both stages."""
    if device == "cpu":
        os.environ["ACCELERATE_USE_CPU"] = "true"
    with tempfile.TemporaryDirectory() as place, quiet_libraries(quiet=True):
        folder = Path(place)
        (folder / "images").mkdir()
        for number, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (IMAGES, SIDE, SIDE, 3), np.uint8)):
            Image.fromarray(pixels).save(folder / "images" / f"{number}.png")

        def first_stage(output: str, steps: int, resume: bool) -> Path:
            given = {**options(folder, output, steps, resume), "model": VAE}
            return train_first_stage(from_mapping(FirstStageRecipe, given))

        def diffusion(output: str, steps: int, resume: bool) -> Path:
            vae = str(folder / "first stage-whole" / "vae")
            given = {**options(folder, output, steps, resume), "vae": vae, "unet": UNET}
            return train_diffusion(from_mapping(DiffusionRecipe, given))

        rows = [compared("first stage", device, folder, first_stage), compared("diffusion", device, folder, diffusion)]
    for row in rows:
        print(f"{row.what}: {row.note}")
    write_whole(path, json.dumps({"rows": [dataclasses.asdict(row) for row in rows]}) + "\n")


if __name__ == "__main__":
    torch.manual_seed(0)
    main(sys.argv[1], Path(sys.argv[3]))
