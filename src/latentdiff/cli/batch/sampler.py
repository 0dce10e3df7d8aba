"""A loaded pipeline together with the options of a command."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from latentdiff import __version__
from latentdiff.cli.batch import processes
from latentdiff.cli.batch.plan import Job
from latentdiff.cli.commands.base import Command
from latentdiff.cli.options import GUIDANCE_OPTIONS, flag
from latentdiff.errors import InputError, TooLargeError
from latentdiff.pipelines.base import DiffusionPipeline
from latentdiff.registry import PIPELINES, SCHEDULERS
from latentdiff.tasks import CLASS_GUIDANCE_SCALE, TEXT_GUIDANCE_SCALE
from latentdiff.windows import Windows


class Sampler:
    """Makes the images of a command.

    Args:
        command: What is made, with its options.

    Raises:
        LatentDiffError: If the device or the model is not valid, or the options don't fit the model.
    """

    def __init__(self, command: Command) -> None:
        self.command, self.args = command, command.args
        device = find_device(self.args.device)
        loaded = load(self.args.model, self.args.revision, self.args.dtype)
        self._check_task(loaded)
        self._check_guidance(loaded)
        self.pipeline = command.prepare(loaded)
        self.guidance, self.windows = self._guidance(), self._windows()
        if self.args.scheduler is not None:
            self.pipeline.set_scheduler(self.args.scheduler)
        self.pipeline.set_progress_bar_config(leave=False)
        self.pipeline.to(device)

    def _check_task(self, loaded: DiffusionPipeline) -> None:
        classes = [PIPELINES.get(task) for task in self.command.tasks]
        if not isinstance(loaded, tuple(classes)):
            name, known = type(loaded).__name__, " or ".join(cls.__name__ for cls in classes)
            raise InputError(f"{self.args.model} is a {name}, latentdiff {self.command.name} needs a {known}")

    def _check_guidance(self, loaded: DiffusionPipeline) -> None:
        given = [name for name in GUIDANCE_OPTIONS if getattr(self.args, name, None) is not None]
        if given and default_scale(loaded) is None:
            raise InputError(f"{self.args.model} is unconditional and has no use for {flag(given[0])}; leave it out")

    def _guidance(self) -> dict[str, Any]:
        """The options of classifier-free guidance, their defaults filled in; none for a command or model without."""
        default = default_scale(self.pipeline)
        if default is None or not hasattr(self.args, "guidance_scale"):
            return {}
        options = {
            "guidance_scale": default if self.args.guidance_scale is None else self.args.guidance_scale,
            "guidance_interval": tuple(self.args.guidance_interval or (0.0, 1.0)),
            "guidance_rescale": self.args.guidance_rescale or 0.0,
        }
        negative = getattr(self.args, "negative_prompt", None)
        return options if negative is None else {**options, "negative_prompt": negative}

    def _windows(self) -> Windows | None:
        size, unit = self.args.window, self.pipeline.vae_scale_factor
        if size is None:
            return None
        overlap = size // 4 // unit * unit if self.args.window_overlap is None else self.args.window_overlap
        return Windows(size, overlap, self.args.wrap)

    def images(self, jobs: Sequence[Job], inputs: Sequence[dict[str, Any]]) -> list[Image.Image]:
        """The images of some jobs, computed as one batch; each depends on its own job alone.

        Raises:
            TooLargeError: If there isn't memory for one image.
            InputError: If there isn't for so many, or an option is not valid.
        """
        batch: dict[str, Any] = {name: [values[name] for values in inputs] for name in inputs[0]}
        batch = batch or {"batch_size": len(jobs)}
        width, height = getattr(self.args, "size", None) or (None, None)
        size = {name: value for name, value in (("width", width), ("height", height)) if value is not None}
        try:
            images: list[Image.Image] = self.pipeline(
                **batch,
                **self.command.options(),
                **self.guidance,
                **size,
                num_inference_steps=self.args.steps,
                eta=self.args.eta,
                windows=self.windows,
                seed=[job.seed for job in jobs],
            ).images
        except RuntimeError as error:
            if not isinstance(error, torch.OutOfMemoryError) and "allocate memory" not in str(error):
                raise
            if len(jobs) == 1:
                raise TooLargeError("no memory for an image of this size; make it smaller or give --window") from None
            raise InputError(f"no memory for {len(jobs)} images at once; lower --batch-size") from None
        return images

    def parameters(self, image: Image.Image, record: dict[str, Any], seed: int | str) -> dict[str, Any]:
        """All that is needed to make `image` of an input and a seed again, as JSON values.

        Args:
            image: As the pipeline made it.
            record: What is said of the input.
            seed: One, or those of a grid as --seed takes them.
        """
        windows = self.windows
        values = {
            "command": self.command.name,
            **record,
            **self.command.options(),
            "model": self.args.model,
            "revision": self.args.revision,
            "dtype": self.args.dtype,
            "seed": seed,
            "steps": self.args.steps,
            "scheduler": scheduler_name(self.pipeline.scheduler),
            "eta": self.args.eta,
            **self.guidance,
            **({"window": windows.size, "window_overlap": windows.overlap} if windows else {}),
            "wrap": self.args.wrap or None,
            "size": f"{image.width}x{image.height}",
            "version": __version__,
        }
        return {name: value for name, value in values.items() if value is not None}


def shapes(inputs: dict[str, Any]) -> tuple[tuple[int, ...], ...]:
    """The shapes of the arrays among a job's inputs: what must be equal within a batch."""
    return tuple(value.shape for value in inputs.values() if isinstance(value, np.ndarray))


def default_scale(pipeline: DiffusionPipeline) -> float | None:
    """The scale of classifier-free guidance if none is given; None for a model that takes no condition it can drop."""
    parts = pipeline.components
    if parts.get("text_encoder") is not None:
        return TEXT_GUIDANCE_SCALE
    if parts.get("class_embedder") is not None:
        return 1.0 if parts["class_embedder"].config.null_class is None else CLASS_GUIDANCE_SCALE
    return 1.0 if "layout_encoder" in parts else None


def load(model: str, revision: str | None, dtype: str) -> DiffusionPipeline:
    """The pipeline of a model, in the named dtype."""
    if revision is not None and (model.startswith("builtin:") or Path(model).is_dir()):
        raise InputError(f"--revision is {revision!r}, but {model} is not on the hub; leave it out")
    pipeline: DiffusionPipeline = DiffusionPipeline.from_pretrained(
        model, revision=revision, dtype=getattr(torch, dtype)
    )
    return pipeline


def find_device(name: str | None) -> torch.device:
    """The named device, by default an accelerator if there is one; InputError unless it works."""
    if name is None:
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        if accelerator is None:
            return torch.device("cpu")
        return torch.device(accelerator.type, processes.local_rank() % torch.accelerator.device_count())
    try:
        device = torch.device(name)
        torch.empty(0, device=device).cpu()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"device {name!r} cannot be used ({reason}); choose another, or leave it out") from None
    return device


def scheduler_name(scheduler: Any) -> str:
    """The scheduler's name in the registry; for others, their class's."""
    known = [name for name in SCHEDULERS.names() if type(scheduler) is SCHEDULERS.get(name)]
    return known[0] if known else type(scheduler).__name__
