"""The models that the page offers, and what its controls have to know of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from latentdiff.cli.batch.device import find_device
from latentdiff.cli.batch.sampler import load
from latentdiff.cli.commands.labels import all_labels
from latentdiff.cli.options import ModelOptions
from latentdiff.demo.controls import CONTROLS, Controls
from latentdiff.errors import InputError
from latentdiff.hub.find import builtin_models
from latentdiff.io.palettes import Colour, parse_palette
from latentdiff.models.latent_colours import LatentColours
from latentdiff.pipelines.base import DiffusionPipeline
from latentdiff.pipelines.run_state import default_guidance_scale
from latentdiff.tasks import TASKS, TaskSpec, task_of_pipeline
from latentdiff.viz.drawing import class_colour


@dataclass(frozen=True)
class PaintClass:
    """A class to paint with.

    Attributes:
        label: Its name, or its number where it has none.
        colour: Red, green and blue.
    """

    label: str | int
    colour: Colour


@dataclass(frozen=True)
class Model:
    """A loaded model.

    Attributes:
        options: Its name, and how it was loaded.
        task: What it does.
        pipeline: The pipeline, whose components all calls share.
        size: Width and height of what it makes by itself, in pixels.
        input_side: The longest side that a picture to start from best has, in pixels.
        labels: The classes to choose from.
        classes: The classes to paint with.
        guidance_scale: The strength of guidance by default; None for a model without.
        takes_prompt: Whether it takes a prompt.
    """

    options: ModelOptions
    task: TaskSpec
    pipeline: DiffusionPipeline
    size: tuple[int, int]
    input_side: int
    labels: tuple[str, ...]
    classes: tuple[PaintClass, ...]
    guidance_scale: float | None
    takes_prompt: bool

    @property
    def name(self) -> str:
        """Its name, as it was given."""
        return self.options.model

    @property
    def controls(self) -> Controls:
        """What its task is asked by."""
        return CONTROLS[self.task.name]

    def pipeline_of_call(self) -> DiffusionPipeline:
        """A pipeline of the same components, whose solver may be changed for one call."""
        return type(self.pipeline).from_pipe(self.pipeline)


def names_of_models(given: Sequence[str]) -> list[str]:
    """The models to offer: those that are given, each once, or all that ship with the package."""
    return list(dict.fromkeys(given)) or list(builtin_models())


def load_model(options: ModelOptions) -> Model:
    """Load a model, and learn what the page has to know of it.

    Raises:
        LatentDiffError: If it can't be loaded, or is of a task that has no controls here.
    """
    pipe = load(options)
    task = task_of_pipeline(type(pipe).__name__)
    if task is None or task.name not in CONTROLS:
        has, known = f"{options.model} has {type(pipe).__name__}", ", ".join(CONTROLS)
        raise InputError(f"{has}, which the page has no controls for; give a model of {known}")
    pipe.to(find_device(options.device))
    pipe.set_progress_bar_config(disable=True)
    if LatentColours.of(pipe.vae) is None:
        with torch.no_grad():
            pipe.fit_preview()
    height, width = own_size(pipe)
    shrinks = int(pipe.vae_scale_factor) if task.name == "super-resolution" else 1
    return Model(
        options=options,
        task=task,
        pipeline=pipe,
        size=(width, height),
        input_side=max(1, max(width, height) // shrinks),
        labels=_labels(pipe),
        classes=_classes(pipe),
        guidance_scale=_guidance_scale(pipe),
        takes_prompt=pipe.components.get("text_encoder") is not None,
    )


def without_model(models: Sequence[Model]) -> list[str]:
    """The tasks that have controls and none of these models."""
    offered = {model.task.name for model in models}
    return [name for name in TASKS if name in CONTROLS and name not in offered]


def own_size(pipe: DiffusionPipeline) -> tuple[int, int]:
    """Height and width that a model makes by itself, in pixels; 256 a side where its configuration leaves it open."""
    own = pipe.unet.config.sample_size
    sides = own if isinstance(own, (tuple, list)) and len(own) == 2 else (own, own)
    factor = int(pipe.vae_scale_factor)
    height, width = (side * factor if isinstance(side, int) and side > 0 else 256 for side in sides)
    return height, width


def _labels(pipe: DiffusionPipeline) -> tuple[str, ...]:
    embedder = pipe.components.get("class_embedder")
    if embedder is None:
        return ()
    names = embedder.config.class_names or ()
    return tuple(
        names[label] if isinstance(label, int) and label < len(names) else str(label) for label in all_labels(pipe)
    )


def _classes(pipe: DiffusionPipeline) -> tuple[PaintClass, ...]:
    """What a layout's boxes or a label map's pixels may be; the colours of a map are those of the model's palette."""
    if "layout_encoder" in pipe.components:
        names = pipe.tokenizer.class_names or range(pipe.tokenizer.num_classes)
        return tuple(PaintClass(name, class_colour(name)) for name in names)
    encoder = pipe.components.get("segmentation_encoder")
    if encoder is None:
        return ()
    config = encoder.config
    labels = config.class_names or range(config.in_channels)
    known = parse_palette(config.palette, config.in_channels, config.class_names) if config.palette else {}
    return tuple(PaintClass(label, known.get(i) or class_colour(label)) for i, label in enumerate(labels))


def _guidance_scale(pipe: DiffusionPipeline) -> float | None:
    embedder = pipe.components.get("class_embedder")
    if embedder is not None and embedder.config.null_class is None:
        return None
    return default_guidance_scale(pipe.components)
