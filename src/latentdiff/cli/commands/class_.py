"""`latentdiff class`: images of classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from latentdiff.cli.batch.command import Arguments, ImageCommand
from latentdiff.cli.batch.make import image_command
from latentdiff.cli.batch.plan import Item, Job, slug
from latentdiff.cli.commands.labels import GivenLabel, Label, parse_labels, resolve_label
from latentdiff.cli.options import (
    Grid,
    GuidanceOptions,
    Size,
)

if TYPE_CHECKING:
    from latentdiff.pipelines.base import DiffusionPipeline


@dataclass(eq=False, kw_only=True)
class Classes(ImageCommand):
    """Make images of classes.

    Each image depends on its class, its seed and the options alone. Files in a folder are called
    NUMBER-CLASS-seedSEED.png.

    Attributes:
        label: A name, else a number, or a range of numbers such as "0-999".
    """

    label: Annotated[list[str], Parameter(name="CLASS")] = field(kw_only=False)
    size: Size = None
    guidance: GuidanceOptions = GuidanceOptions()
    grid: Grid = False
    task = "class-to-image"

    def __post_init__(self) -> None:
        self.labels = parse_labels(self.label)
        self.meant: dict[GivenLabel, Label] = {}

    def items(self) -> Sequence[Item]:
        """An item for each class."""
        return [Item(slug(label.name), label) for label in self.labels]

    def prepare(self, pipe: DiffusionPipeline) -> DiffusionPipeline:
        """The pipeline, if it knows all classes."""
        self.meant = {label: resolve_label(pipe, label) for label in self.labels}
        return pipe

    def fit(self, pipe: DiffusionPipeline, job: Job, inputs: Arguments) -> Arguments:
        """The class."""
        return {"class_labels": self._label(job)}

    def record(self, job: Job) -> dict[str, object]:
        """The class."""
        return {"label": self._label(job)}

    def _label(self, job: Job) -> Label:
        assert isinstance(job.item.source, GivenLabel)
        return self.meant[job.item.source]


class_ = image_command(Classes)
