"""Both stages of a model of images that are no photographs: trained by recipes in Python, and measured."""

import json
from argparse import Namespace
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from common import overrides
from numpy.typing import NDArray
from PIL import Image

from latentdiff import DiffusionPipeline
from latentdiff.config import load_recipe
from latentdiff.io.files import atomic_folder
from latentdiff.training.diffusion.task import train_diffusion
from latentdiff.training.first_stage.task import train_first_stage
from latentdiff.training.recipes import DiffusionRecipe, FirstStageRecipe

SIDE = 32
FIRST_STAGE = {
    "model": {"downsampling_factor": 2, "base_channels": 16, "latent_channels": 4},
    "loss": {"reconstruction": "l1", "kl_weight": 1.0e-4},
    "optimizer": {"learning_rate": 1.0e-3, "lr_scheduler": "cosine"},
    "ema": {"decay": 0.99},
    "train_batch_size": 16,
    "max_train_steps": 600,
    "report": {},
}
DIFFUSION = {
    "unet": {
        "block_out_channels": [32, 64],
        "layers_per_block": 1,
        "attention_levels": [False, True],
        "num_head_channels": 16,
        "norm_num_groups": 8,
    },
    "noise_schedule": {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True},
    "optimizer": {"learning_rate": 1.0e-3, "lr_scheduler": "cosine"},
    "ema": {"decay": 0.99},
    "train_batch_size": 32,
    "max_train_steps": 1500,
}
Values = NDArray[np.uint16]


def write_values(folder: Path, images: Iterable[tuple[Values, Mapping[str, Any]]]) -> Path:
    """An image folder of (values (H, W) or (H, W, C) of 16 bits, what is known of it), unless it is there.

    One channel becomes a PNG of 16 bits, more an array; a `label_map` (H, W) of 8 bits becomes a PNG in `maps/`.
    """
    if folder.exists():
        return folder
    with atomic_folder(folder) as aside, (aside / "metadata.jsonl").open("w", encoding="utf-8") as lines:
        (aside / "maps").mkdir(parents=True)
        for number, (values, known) in enumerate(images):
            name = f"{number:05d}.{'png' if values.ndim == 2 else 'npy'}"
            if values.ndim == 2:
                Image.fromarray(values).save(aside / name)
            else:
                np.save(aside / name, values)
            row = {"file_name": name, **known}
            if "label_map" in known:
                row["label_map"] = f"maps/{number:05d}.png"
                Image.fromarray(known["label_map"]).save(aside / row["label_map"])
            lines.write(json.dumps(row) + "\n")
    return folder


def both_stages(
    name: str,
    folders: tuple[Path, Path],
    value_range: Sequence[float],
    conditioning: Mapping[str, Any],
    options: Namespace,
    run: str | None = None,
    **diffusion: Any,
) -> tuple[Any, dict[str, float]]:
    """The pipeline that two recipes train, or have trained before, and the figures of the first stage's report.

    Args:
        name: What the runs are called.
        folders: The images to train on, and others to look at.
        value_range: The values that become -1 and 1.
        conditioning: That of the diffusion model.
        options: Where it works, and for how many steps.
        run: What the diffusion model's run is called, if otherwise.
        **diffusion: Parts of its recipe in place of those of `DIFFUSION`.
    """
    first, second = options.work / "runs" / f"{name}-first-stage", options.work / "runs" / (run or f"{name}-diffusion")
    data = {"train_data_dir": str(folders[0]), "resolution": SIDE, "value_range": list(value_range)}
    looks = {"steps": options.max_train_steps or 300, "data_dir": str(folders[1])}
    shared = {"logging_steps": 50, "report_to": "none"}
    if not (first / "report.json").exists():
        values = {**shared, **FIRST_STAGE, "data": data, "validation": looks}
        train_first_stage(load_recipe(FirstStageRecipe, None, {**values, **overrides(first, options)}))
    if not (second / "pipeline").exists():
        values = {**shared, **DIFFUSION, "data": data, "vae": str(first / "vae"), "conditioning": dict(conditioning)}
        values |= diffusion
        train_diffusion(load_recipe(DiffusionRecipe, None, {**values, **overrides(second, options)}))
    pipe = DiffusionPipeline.from_pretrained(second / "pipeline")
    pipe.set_progress_bar_config(disable=True)
    rows = json.loads((first / "report.json").read_text(encoding="utf-8"))["results"]
    return pipe, {row["metric"]: row["value"] for row in rows}


def values_of(images: NDArray[np.floating[Any]], value_range: Sequence[float]) -> NDArray[np.floating[Any]]:
    """Values in the files' units of a pipeline's images, which are in [0, 1]."""
    low, high = value_range
    return images * (high - low) + low


def shown(values: NDArray[Any], low: float, high: float) -> Image.Image:
    """Values (H, W) or (H, W, 3) as a picture: black at `low`, white at `high`, four times as large."""
    pixels = (255 * ((values.astype(float) - low) / (high - low)).clip(0, 1)).round().astype(np.uint8)
    picture = Image.fromarray(pixels).convert("RGB")
    return picture.resize((4 * picture.width, 4 * picture.height), Image.Resampling.NEAREST)
