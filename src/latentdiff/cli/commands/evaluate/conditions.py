"""What a conditional model shows that is evaluated: the captions, classes or layouts of a data set, in turn."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from latentdiff.cli.batch.command import Arguments, ImageCommand
from latentdiff.cli.batch.plan import Item, Job
from latentdiff.cli.commands.generate import read_prompts
from latentdiff.cli.commands.sample import Sample
from latentdiff.cli.options import GuidanceOptions, SolverOptions
from latentdiff.errors import InputError
from latentdiff.labels import class_number

if TYPE_CHECKING:
    from latentdiff.evaluation.image_sets import FileImages, ImageSet
    from latentdiff.pipelines.base import DiffusionPipeline


@dataclass(eq=False, kw_only=True)
class SampleOf(ImageCommand):
    """Images by seed, as `latentdiff sample` makes them, each of one of several conditions.

    Attributes:
        values: The conditions: seed s shows number s modulo their count.
    """

    values: Sequence[object] = field(kw_only=False)
    sampling: SolverOptions = SolverOptions()
    guidance: GuidanceOptions = GuidanceOptions()

    def items(self) -> Sequence[Item]:
        """One, which has all seeds."""
        return [Item("sample", None)]

    def file_name(self, number: int, item: Item, seed: int, several: bool) -> str:
        """The seed, by which several runs fill one folder."""
        return f"{seed:06d}"

    def shown(self, job: Job) -> object:
        """The condition of a job."""
        return self.values[job.seed % len(self.values)]

    def fingerprint(self, job: Job) -> str:
        """That of the job's condition, too."""
        return super().fingerprint(replace(job, item=Item(job.item.name, self.shown(job))))


@dataclass(eq=False, kw_only=True)
class SampleTexts(SampleOf):
    """Images of captions; what is too long for the text encoder is left out, as by the original's."""

    task = "text-to-image"

    def prepare(self, pipe: DiffusionPipeline) -> DiffusionPipeline:
        """The pipeline, if it can read all captions, so that none stops the run when most is done."""
        from latentdiff.pipelines.prompts import check_prompt, tokenize

        texts = [check_prompt(text) for text in dict.fromkeys(self.values)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a call warns of each that is too long
            tokenize(pipe.tokenizer, texts, pipe.max_length, truncate=True)
        return pipe

    def fit(self, pipe: DiffusionPipeline, job: Job, inputs: Arguments) -> Arguments:
        """The seed's caption."""
        return {"prompt": self.shown(job)}

    def arguments(self) -> Arguments:
        """What is done with captions that are too long."""
        return {"truncate_prompt": True}

    def record(self, job: Job) -> dict[str, object]:
        """The seed's caption."""
        return {"prompt": self.shown(job)}


@dataclass(eq=False, kw_only=True)
class SampleClasses(SampleOf):
    """Images of classes."""

    task = "class-to-image"

    def prepare(self, pipe: DiffusionPipeline) -> DiffusionPipeline:
        """The pipeline, if it knows all classes."""
        config = pipe.class_embedder.config
        for label in dict.fromkeys(self.values):
            assert isinstance(label, (int, str))
            class_number(label, config.num_classes, config.class_names)
        return pipe

    def fit(self, pipe: DiffusionPipeline, job: Job, inputs: Arguments) -> Arguments:
        """The seed's class."""
        return {"class_labels": self.shown(job)}

    def record(self, job: Job) -> dict[str, object]:
        """The seed's class."""
        return {"label": self.shown(job)}


@dataclass(eq=False, kw_only=True)
class SampleLayouts(SampleOf):
    """Images of objects in boxes."""

    task = "layout-to-image"

    def prepare(self, pipe: DiffusionPipeline) -> DiffusionPipeline:
        """The pipeline, if it knows all objects' classes and takes so many."""
        pipe.tokenizer(list(self.values), **self.arguments())
        return pipe

    def fit(self, pipe: DiffusionPipeline, job: Job, inputs: Arguments) -> Arguments:
        """The seed's objects."""
        return {"layouts": self.shown(job)}

    def arguments(self) -> Arguments:
        """How boxes are given."""
        return {"box_format": "xyxy"}

    def record(self, job: Job) -> dict[str, object]:
        """The seed's objects."""
        return {"objects": self.shown(job)}


@dataclass(frozen=True)
class SampledConditions:
    """What a model is to show.

    Attributes:
        command: The command that makes images of it.
        values: The captions, classes or layouts.
        source: What messages call the data that they are from.
    """

    command: Callable[..., SampleOf]
    values: Sequence[object]
    source: str

    @property
    def are_captions(self) -> bool:
        """Whether they are captions, which CLIPScore needs beside the samples."""
        return self.command is SampleTexts

    def fingerprint(self) -> str:
        """A hash that changes with them."""
        return hashlib.sha256(json.dumps(list(self.values)).encode()).hexdigest()


def read_conditions(
    model: str, revision: str | None, given: str | None, reference: ImageSet | None
) -> SampledConditions | None:
    """What a model is to show; None for one that `latentdiff sample` samples by itself.

    Args:
        model: The model.
        revision: Its revision on the hub.
        given: Data with conditions, or a `.txt` of prompts; None takes those of the reference.
        reference: The images of the reference; None if it has none.

    Raises:
        InputError: If the data has no conditions of the model's kind, or the model is of a task that needs images.
        LatentDiffError: If the model can't be found.
    """
    from latentdiff.evaluation.image_sets import FileImages, open_images
    from latentdiff.hub.folder import ModelFolder
    from latentdiff.tasks import task_of_pipeline

    task = task_of_pipeline(ModelFolder.open(model, revision=revision).index.class_name)
    if task is None or task.name not in (*READERS, "unconditional"):
        how = "Python" if task and task.command is None else f"latentdiff {task.command}" if task else "latentdiff"
        raise InputError(f"{model} can't be sampled here; fill a folder with {how}, and evaluate that")
    if given is None and task.name in ("unconditional", "class-to-image"):
        return None
    if task.name == "unconditional":
        raise InputError(f"{model} is unconditional and has no use for --conditions; leave it out")
    command, what, read = READERS[task.name]
    if given is not None and Path(given).suffix == ".txt":
        if command is not SampleTexts:
            raise InputError(f"--conditions is {given}, but {model} takes no prompts; give data that has {what}")
        return SampledConditions(command, read_prompts((), given), given)
    images = reference if given is None else open_images(given)
    values = read(images) if isinstance(images, FileImages) else None
    if not values:
        source = "the reference" if images is None else images.name
        raise InputError(f"{model} shows {what}, of which {source} has none; give --conditions DATA that has some")
    assert images is not None
    return SampledConditions(command, values, images.name)


def _captions(images: FileImages) -> Sequence[object] | None:
    """The first caption of each image."""
    return images.captions


def _classes(images: FileImages) -> Sequence[object] | None:
    """The class of each image."""
    return images.records.columns.get("label")


def _layouts(images: FileImages) -> Sequence[object] | None:
    """The objects of each image that has some, as in training: of the centre square."""
    from latentdiff.data.images import Images
    from latentdiff.data.layouts import read_layouts, resolve_box_format

    options = images.options
    if options is None or "objects" not in images.records.columns:
        return None
    read = Images(images.records, options.resolution)
    how = resolve_box_format(read, options.box_format, options.box_units)
    layouts = enumerate(read_layouts(read, *how))
    return [seen for number, layout in layouts if (seen := layout.seen(read.views.centre(number)))]


READERS: dict[str, tuple[Callable[..., SampleOf], str, Callable[[FileImages], Sequence[object] | None]]] = {
    "text-to-image": (SampleTexts, "captions", _captions),
    "class-to-image": (SampleClasses, "classes", _classes),
    "layout-to-image": (SampleLayouts, "layouts", _layouts),
}
"""Of each task that takes conditions: the command that samples them, what they are, and how they are read."""


def sampling_command(shown: SampledConditions | None) -> Callable[..., ImageCommand]:
    """The command that samples a model, which is called with its options alone."""
    if shown is None:
        return Sample
    return lambda **options: shown.command(shown.values, **options)
