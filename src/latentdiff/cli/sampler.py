"""A loaded pipeline together with the options of a `generate` command."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from latentdiff import __version__
from latentdiff.cli.plan import DEFAULT_GUIDANCE_SCALE, GUIDANCE_OPTIONS, Job, Plan
from latentdiff.errors import InputError
from latentdiff.pipelines.base import DiffusionPipeline
from latentdiff.pipelines.prompts import as_list
from latentdiff.pipelines.text_to_image import TextToImagePipeline
from latentdiff.pipelines.unconditional import UnconditionalPipeline
from latentdiff.registry import SCHEDULERS


class Sampler:
    """Makes the images of a plan.

    Args:
        plan: Its prompts decide whether the model fits.
        args: The options of `latentdiff generate`.

    Raises:
        LatentDiffError: If a prompt, the device or the model is not valid, or the options don't fit the model.
    """

    def __init__(self, plan: Plan, args: argparse.Namespace) -> None:
        self.args = args
        prompts = [prompt for prompt in plan.prompts if prompt is not None]
        if prompts:
            as_list(prompts)
        device = find_device(args.device)
        self.pipeline = load(args.model, args.revision, args.dtype)
        self.conditional = isinstance(self.pipeline, TextToImagePipeline)
        self._check_task(prompts)
        if args.scheduler is not None:
            self.pipeline.set_scheduler(args.scheduler)
        self.pipeline.set_progress_bar_config(leave=False)
        self.pipeline.to(device)

    def _check_task(self, prompts: list[str]) -> None:
        name = type(self.pipeline).__name__
        if not self.conditional and not isinstance(self.pipeline, UnconditionalPipeline):
            raise InputError(f"{self.args.model} is a {name}, which needs more than prompts; use it from Python")
        if self.conditional and not prompts:
            raise InputError(f"{self.args.model} makes images of prompts; give a PROMPT, or --prompts FILE")
        given = [name for name in GUIDANCE_OPTIONS if getattr(self.args, name) is not None]
        if not self.conditional and (prompts or given):
            option = "a prompt" if prompts else f"--{given[0].replace('_', '-')}"
            raise InputError(f"{self.args.model} is unconditional and has no use for {option}; leave it out")

    def _guidance(self) -> dict[str, Any]:
        """The options of classifier-free guidance, their defaults filled in; none for an unconditional model."""
        if not self.conditional:
            return {}
        scale = DEFAULT_GUIDANCE_SCALE if self.args.guidance_scale is None else self.args.guidance_scale
        return {
            "guidance_scale": scale,
            "guidance_interval": tuple(self.args.guidance_interval or (0.0, 1.0)),
            "guidance_rescale": self.args.guidance_rescale or 0.0,
            "negative_prompt": self.args.negative_prompt,
        }

    def images(self, jobs: Sequence[Job]) -> list[Image.Image]:
        """The images of some jobs, computed as one batch; each depends on its own job alone."""
        width, height = self.args.size or (None, None)
        inputs = {"prompt": [job.prompt for job in jobs]} if self.conditional else {"batch_size": len(jobs)}
        try:
            images: list[Image.Image] = self.pipeline(
                **inputs,
                **self._guidance(),
                height=height,
                width=width,
                num_inference_steps=self.args.steps,
                eta=self.args.eta,
                seed=[job.seed for job in jobs],
            ).images
        except RuntimeError as error:
            if isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error):
                raise InputError(f"no memory for {len(jobs)} images at once; lower --batch-size or --size") from None
            raise
        return images

    def parameters(self, image: Image.Image, prompts: Sequence[str | None], seed: int | str) -> dict[str, Any]:
        """All that is needed to make `image` of `prompts` and `seed` again, as JSON values."""
        values = {
            "prompt": prompts[0] if len(prompts) == 1 else list(prompts),
            "model": self.args.model,
            "revision": self.args.revision,
            "dtype": self.args.dtype,
            "seed": seed,
            "steps": self.args.steps,
            "scheduler": scheduler_name(self.pipeline.scheduler),
            "eta": self.args.eta,
            **self._guidance(),
            "size": f"{image.width}x{image.height}",
            "version": __version__,
        }
        return {name: value for name, value in values.items() if value is not None}


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
        return accelerator or torch.device("cpu")
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
