"""What a model is asked for while it is measured: examples for its speed, a reference's conditions for its quality."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from latentdiff.errors import InputError
from latentdiff.evaluation.image_sets import FileImages, ImageSet
from latentdiff.labels import class_number
from latentdiff.pipelines.base import DiffusionPipeline, temporary_scheduler
from latentdiff.pipelines.class_to_image import ClassToImagePipeline
from latentdiff.pipelines.hybrid import HybridPipeline
from latentdiff.pipelines.prompts import tokenize
from latentdiff.pipelines.text_to_image import TextToImagePipeline
from latentdiff.pipelines.unconditional import UnconditionalPipeline
from latentdiff.schedulers.select import scheduler_name
from latentdiff.tasks import task_of_pipeline

Arguments = dict[str, object]
"""Arguments of a pipeline's call, by their names."""

GREY = 128
BATCH_OF_CAPTIONS = 1024  # that are tokenized at once


def task_name(pipe: DiffusionPipeline) -> str:
    """The task of a pipeline.

    Raises:
        InputError: If it is none of the package's.
    """
    spec = task_of_pipeline(type(pipe).__name__)
    if spec is None:
        raise InputError(f"a {type(pipe).__name__} can't be measured; give a model of one of the package's tasks")
    return spec.name


def own_size(pipe: DiffusionPipeline) -> tuple[int, int]:
    """Height and width in pixels of the images that a model makes by default.

    Raises:
        InputError: If its configuration leaves them open.
    """
    sides = pipe.unet.config.sample_size
    height, width = sides if isinstance(sides, (tuple, list)) else (sides, sides)
    if not isinstance(height, int) or not isinstance(width, int):
        raise InputError(f"this model's UNet has sample_size {sides!r}; give a model that says how large images are")
    return height * pipe.vae_scale_factor, width * pipe.vae_scale_factor


@contextmanager
def solver_of(pipe: DiffusionPipeline, solver: str | None) -> Iterator[None]:
    """Have a model another solver while the block runs; its own, of that name or for None, keeps its options.

    Raises:
        ConfigError: If there is no such solver.
    """
    if solver is None or solver == scheduler_name(pipe.scheduler):
        yield
        return
    with temporary_scheduler(pipe, solver):
        yield


def example_inputs(pipe: DiffusionPipeline, count: int) -> Arguments:
    """Arguments for a call that makes `count` images, of a model of any task.

    What they show changes nothing about the work: empty captions are padded, images are grey.
    """
    task, (height, width) = task_name(pipe), own_size(pipe)
    small = height // pipe.vae_scale_factor, width // pipe.vae_scale_factor
    mask = np.zeros((height, width), dtype=bool)
    mask[height // 4 : height // 2, width // 4 : width // 2] = True

    def grey(size: tuple[int, int]) -> object:
        return np.full((count, *size, 3), GREY, np.uint8)

    inputs: dict[str, Arguments] = {
        "text-to-image": {"prompt": [""] * count},
        "unconditional": {"batch_size": count},
        "class-to-image": {"class_labels": [0] * count},
        "layout-to-image": {"layouts": [[{"class": 0, "box": (0.25, 0.25, 0.5, 0.5)}]] * count},
        "semantic-to-image": {"label_map": np.zeros((count, height, width), np.int64)},
        "super-resolution": {"image": grey(small)},
        "inpaint": {"image": grey((height, width)), "mask_image": mask},
    }
    if isinstance(pipe, HybridPipeline):
        return {argument: value for name in pipe.conditions for argument, value in inputs[name].items()}
    prompt: Arguments = {"prompt": ""} if "image" in inputs[task] and pipe.components.get("text_encoder") else {}
    return inputs[task] | prompt


@dataclass(frozen=True)
class Conditions:
    """The conditions of the images of a cell, which are the same in every cell.

    Attributes:
        name: The argument that takes them; None for an unconditional model.
        values: The condition of each image.
    """

    name: str | None
    values: Sequence[object]

    def arguments(self, numbers: range) -> Arguments:
        """The arguments of a call that makes the images of these numbers."""
        if self.name is None:
            return {"batch_size": len(numbers)}
        return {self.name: [self.values[number] for number in numbers]}


def conditions_of(
    pipe: DiffusionPipeline, reference: ImageSet | None, name: str, count: int, reference_count: int | None
) -> Conditions:
    """The conditions of `count` images: image i has that of image floor(i M / count) of the M that count as reference.

    Args:
        pipe: The model.
        reference: The images of the reference; None if it has moments alone.
        name: What messages call the reference.
        count: The number of images.
        reference_count: How many images of the reference count, from the first on; None if it has moments alone.

    Raises:
        InputError: If the model takes another kind of condition, the reference has none, or one is not valid.
    """
    if isinstance(pipe, UnconditionalPipeline):
        return Conditions(None, [])
    if isinstance(pipe, TextToImagePipeline):
        argument, what, column = "prompt", "captions (the column text of metadata.jsonl)", "text"
        known: Sequence[object] | None = None if reference is None else reference.captions
    elif isinstance(pipe, ClassToImagePipeline):
        argument, what, column = "class_labels", "classes (folders, or the column label of metadata.jsonl)", "label"
        known = reference.records.columns.get("label") if isinstance(reference, FileImages) else None
    else:
        raise InputError(
            f"the quality of {task_name(pipe)} is measured against its inputs, by latentdiff evaluate; a reference is "
            "for text-to-image, class-to-image and unconditional models, leave it out"
        )
    if known is None:
        raise InputError(f"the reference {name} has no {what}, which the model's images are made of; give one that has")
    known = known[:reference_count]
    values = [known[number * len(known) // count] for number in range(count)]
    _check(pipe, values, f"the column {column} of the reference {name}")
    return Conditions(argument, values)


def _check(pipe: DiffusionPipeline, values: Sequence[object], where: str) -> None:
    """InputError unless the model knows all conditions; they are looked at before anything is computed."""
    try:
        if isinstance(pipe, ClassToImagePipeline):
            config = pipe.class_embedder.config
            for label in dict.fromkeys(values):
                class_number(label, config.num_classes, config.class_names)
        elif isinstance(pipe, TextToImagePipeline):
            texts = [str(text) for text in dict.fromkeys(values)]
            for start in range(0, len(texts), BATCH_OF_CAPTIONS):
                tokenize(pipe.tokenizer, texts[start : start + BATCH_OF_CAPTIONS], pipe.max_length)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
