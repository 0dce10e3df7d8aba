"""`latentdiff img2img`: images like given ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from latentdiff.cli.batch.command import Arguments
from latentdiff.cli.batch.make import image_command
from latentdiff.cli.batch.masks import MaskedCommand
from latentdiff.cli.batch.plan import Item, Job
from latentdiff.cli.commands.labels import GivenLabel, Label, resolve_label
from latentdiff.cli.options import (
    SAMPLING,
    TextGuidanceOptions,
)
from latentdiff.cli.values import number
from latentdiff.errors import InputError

if TYPE_CHECKING:
    from latentdiff.pipelines.base import DiffusionPipeline


@dataclass(eq=False, kw_only=True)
class ImageToImage(MaskedCommand):
    """Change images, all of each or under a mask.

    Noise is added to them and removed again, with what the model is told to show.

    Attributes:
        prompt: What to show, for a text model.
        label: Name, else number, of the class to show, for a class-conditional model.
        strength: How far results may go from the images, up to 1.
    """

    prompt: Annotated[str | None, Parameter(metavar="TEXT")] = None
    label: Annotated[str | None, Parameter(metavar="CLASS")] = None
    strength: Annotated[float, Parameter(validator=number(0.001, 1), metavar="SHARE", group=SAMPLING)] = 0.8
    guidance: TextGuidanceOptions = TextGuidanceOptions()
    task = "image-to-image"
    takes = ("text-to-image", "class-to-image", "unconditional", "image-to-image")

    def __post_init__(self) -> None:
        self.class_label: Label | None = None  # the model says what it means

    def items(self) -> Sequence[Item]:
        """Images; the prompt is checked, too."""
        if self.prompt is not None:
            from latentdiff.pipelines.prompts import as_list

            as_list(self.prompt)
        return super().items()

    def prepare(self, pipe: DiffusionPipeline) -> DiffusionPipeline:
        """The components of the model as the pipeline for images, if they fit what is given."""
        from latentdiff.pipelines.image_to_image import ImageToImagePipeline

        for option, given, part in (("prompt", self.prompt, "text_encoder"), ("label", self.label, "class_embedder")):
            needed = pipe.components.get(part) is not None
            if needed != (given is not None):
                text = f"needs --{option}; say what to show" if needed else f"has no use for --{option}; leave it out"
                raise InputError(f"{self.model.model} {text}")
        if self.guidance.negative_prompt is not None and pipe.components.get("text_encoder") is None:
            raise InputError(f"{self.model.model} has no use for --negative-prompt; leave it out")
        if self.label is not None:
            self.class_label = resolve_label(pipe, GivenLabel(self.label))
        return pipe if isinstance(pipe, ImageToImagePipeline) else ImageToImagePipeline.from_pipe(pipe)

    def fit(self, pipe: DiffusionPipeline, job: Job, inputs: Arguments) -> Arguments:
        """The image, its mask, and what to show."""
        shown = {"prompt": self.prompt, "class_labels": self.class_label}
        given = {name: value for name, value in shown.items() if value is not None}
        return {**super().fit(pipe, job, inputs), **given}

    def arguments(self) -> Arguments:
        """The strength."""
        return {"strength": self.strength}

    def record(self, job: Job) -> dict[str, object]:
        """The files' names, and what is shown."""
        return {**super().record(job), "prompt": self.prompt, "label": self.class_label}


img2img = image_command(ImageToImage)
