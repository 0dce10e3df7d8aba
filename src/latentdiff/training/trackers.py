"""Experiment trackers beside `log.jsonl`, through accelerate."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers
from PIL import Image

from latentdiff.errors import ConfigError, LatentDiffWarning
from latentdiff.registry import nearest
from latentdiff.training.recipes import Recipe, as_dict

PROJECT, FOLDER = "latentdiff", "logs"


def tracker_options(recipe: Recipe) -> dict[str, Any]:
    """What `Accelerator` has to be told of the recipe's `report_to`.

    Raises:
        ConfigError: If accelerate doesn't know the tracker, or its package is not installed.
    """
    name, installed = recipe.report_to, {str(tracker) for tracker in get_available_trackers()}
    if name == "auto":
        name = "tensorboard" if "tensorboard" in installed else "none"
        if name == "none":
            line = "tensorboard is not installed, so the run has log.jsonl alone (pip install 'latentdiff[training]')"
            warnings.warn(LatentDiffWarning(line), stacklevel=2)
    if name == "none":
        return {}
    if name not in LOGGER_TYPE_TO_CLASS:
        raise ConfigError(f"report_to is {name!r}; {nearest(name, ['auto', 'none', *LOGGER_TYPE_TO_CLASS])}")
    if name not in installed:
        raise ConfigError(f"report_to is {name!r}, whose package is not installed; install it, or give 'none'")
    return {"log_with": name, "project_dir": Path(recipe.output_dir) / FOLDER}


def start_trackers(accelerator: Accelerator, recipe: Recipe, first_step: int) -> None:
    """Open the trackers, with the recipe; what TensorBoard has of steps after a resume's is hidden."""
    if accelerator.log_with:
        config = {key: _plain(value) for key, value in as_dict(recipe).items()}
        accelerator.init_trackers(PROJECT, config, {"tensorboard": {"purge_step": first_step + 1}})


def track_pictures(accelerator: Accelerator, pictures: Iterable[Path], step: int) -> None:
    """Show files named `WHAT-STEP.png` in the trackers that have images, each as WHAT."""
    for path in pictures:
        pixels = np.asarray(Image.open(path).convert("RGB"))[None]
        for tracker in accelerator.trackers:
            options = {"dataformats": "NHWC"} if tracker.name == "tensorboard" else {}
            if hasattr(tracker, "log_images"):
                tracker.log_images({path.stem.rpartition("-")[0]: pixels}, step=step, **options)


def _plain(value: Any) -> Any:
    """A value that every tracker takes."""
    return value if isinstance(value, (str, int, float)) else json.dumps(value)
