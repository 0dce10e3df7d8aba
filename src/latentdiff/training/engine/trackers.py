"""Experiment trackers beside `log.jsonl`, through accelerate."""

from __future__ import annotations

import json
import threading
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from accelerate import Accelerator
from accelerate.tracking import get_available_trackers
from accelerate.utils import LoggerType
from PIL import Image

from latentdiff.config import flat
from latentdiff.errors import ConfigError, LatentDiffWarning
from latentdiff.registry import nearest
from latentdiff.training.engine.options import Recipe
from latentdiff.types import JSON

PROJECT, TRACKER_FOLDER = "latentdiff", "logs"


def tracker_options(report_to: str, output_dir: str) -> JSON:
    """What `Accelerator` has to be told of the trackers.

    Args:
        report_to: The recipe's option of that name.
        output_dir: The run's folder, in which local trackers write.

    Raises:
        ConfigError: If accelerate doesn't know the tracker, or its package is not installed.
    """
    name, installed = report_to, {str(tracker) for tracker in get_available_trackers()}
    if name == "auto":
        name = "tensorboard" if "tensorboard" in installed else "none"
        if name == "none":
            line = "tensorboard is not installed, so the run has log.jsonl alone (pip install 'latentdiff[training]')"
            warnings.warn(LatentDiffWarning(line), stacklevel=2)
    if name == "none":
        return {}
    known = [tracker.value for tracker in LoggerType if tracker != LoggerType.ALL]
    if name not in known:
        raise ConfigError(f"report_to is {name!r}; {nearest(name, ['auto', 'none', *known])}")
    if name not in installed:
        raise ConfigError(f"report_to is {name!r}, whose package is not installed; install it, or give 'none'")
    return {"log_with": name, "project_dir": Path(output_dir) / TRACKER_FOLDER}


def start_trackers(accelerator: Accelerator, recipe: Recipe, first_step: int) -> None:
    """Open the trackers, with the recipe's options; what TensorBoard has of steps after a resume's is hidden."""
    if accelerator.log_with:
        config = {name: _plain(value) for name, value in flat(recipe.model_dump()).items()}
        with _given_up(accelerator):
            accelerator.init_trackers(PROJECT, config, {"tensorboard": {"purge_step": first_step + 1}})


@contextmanager
def _given_up(accelerator: Accelerator) -> Iterator[None]:
    """Trackers that fail, for want of a service or of room, are said and given up: no run ends for them."""
    try:
        yield
    except Exception as error:
        name, reason = str(accelerator.log_with[0]), (str(error).splitlines() or [type(error).__name__])[0]
        accelerator.trackers.clear()
        line = f"{name} failed ({reason}); the run goes on with log.jsonl alone"
        warnings.warn(LatentDiffWarning(line), stacklevel=2)


def track_values(accelerator: Accelerator, values: Mapping[str, float], step: int) -> None:
    """Tell the trackers what is known after a step."""
    with _given_up(accelerator):
        accelerator.log({name: float(value) for name, value in values.items()}, step=step)


def track_pictures(accelerator: Accelerator, pictures: Iterable[Path], step: int) -> None:
    """Show files named `WHAT-STEP.png` in the trackers that have images, each as WHAT."""
    if not accelerator.trackers:
        return
    with _given_up(accelerator):
        for path in pictures:
            pixels = np.asarray(Image.open(path).convert("RGB"))[None]
            for tracker in accelerator.trackers:
                options = {"dataformats": "NHWC"} if tracker.name == "tensorboard" else {}
                if hasattr(tracker, "log_images"):
                    tracker.log_images({path.stem.rpartition("-")[0]: pixels}, step=step, **options)


@contextmanager
def silent_threads() -> Iterator[None]:
    """In the block errors of the thread in which TensorBoard writes aren't printed: its next call raises them."""
    before = threading.excepthook

    def hook(caught: threading.ExceptHookArgs) -> None:
        if not type(caught.thread).__module__.startswith("tensorboard."):
            before(caught)

    threading.excepthook = hook
    try:
        yield
    finally:
        threading.excepthook = before


def end_trackers(accelerator: Accelerator) -> None:
    """Have the trackers write what they hold, and leave them."""
    with _given_up(accelerator):
        for tracker in accelerator.trackers:
            tracker.finish()
    accelerator.trackers.clear()


def _plain(value: object) -> str | float:
    """A value that every tracker takes."""
    return value if isinstance(value, (str, int, float)) else json.dumps(value)
