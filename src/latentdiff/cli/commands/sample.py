"""`latentdiff sample`: many images of the distribution that a model has learned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from latentdiff.cli.batch.command import Arguments, ImageCommand
from latentdiff.cli.batch.make import image_command
from latentdiff.cli.batch.plan import Item, Job
from latentdiff.cli.commands.labels import Label, all_labels, parse_labels, resolve_label
from latentdiff.cli.options import (
    BulkOptions,
    FirstSeedOptions,
    GuidanceOptions,
    Size,
)
from latentdiff.errors import InputError
from latentdiff.labels import class_number

if TYPE_CHECKING:
    from latentdiff.pipelines.base import DiffusionPipeline


@dataclass(eq=False, kw_only=True)
class Sample(ImageCommand):
    """Make many images by seed, such as 50000 for FID.

    Those that exist are kept, so an interrupted run goes on. With a class-conditional model, seeds take the classes
    in turn. Files in a folder are called SEED.png, of six digits; an --output that ends in .npz holds all images as the
    array arr_0, and the numbers of their classes as arr_1.

    Attributes:
        label: Names, else numbers, or ranges such as "0-999": seed s shows number s modulo their count (default: all).
    """

    label: Annotated[list[str] | None, Parameter(consume_multiple=1, metavar="CLASS")] = None
    sampling: FirstSeedOptions = FirstSeedOptions()
    size: Size = None
    guidance: GuidanceOptions = GuidanceOptions()
    bulk: BulkOptions = BulkOptions()
    task = "unconditional"
    takes = ("unconditional", "class-to-image")
    array = True

    def __post_init__(self) -> None:
        self.given = parse_labels(self.label or [])
        self.labels: list[Label] = []
        self.numbers: list[int] = []  # of the labels, once the model has said them

    def items(self) -> Sequence[Item]:
        """One, which has all seeds."""
        return [Item("sample", None)]

    def file_name(self, number: int, item: Item, seed: int, several: bool) -> str:
        """The seed, by which several runs fill one folder."""
        return f"{seed:06d}"

    def prepare(self, pipe: DiffusionPipeline) -> DiffusionPipeline:
        """The pipeline, if it knows all classes; by default all but the null class are taken."""
        embedder = pipe.components.get("class_embedder")
        if embedder is None and self.given:
            raise InputError(f"{self.model.model} is unconditional and has no use for --label; leave it out")
        if embedder is not None:
            self.labels = [resolve_label(pipe, label) for label in self.given] or all_labels(pipe)
            config = embedder.config
            self.numbers = [class_number(label, config.num_classes, config.class_names) for label in self.labels]
        return pipe

    def fit(self, pipe: DiffusionPipeline, job: Job, inputs: Arguments) -> Arguments:
        """The seed's class, if the model has classes."""
        return {"class_labels": self._label(job)} if self.labels else {}

    def record(self, job: Job) -> dict[str, object]:
        """The seed's class."""
        return {"label": self._label(job)} if self.labels else {}

    def class_number(self, job: Job) -> int | None:
        """The number of the seed's class."""
        return self.numbers[job.seed % len(self.numbers)] if self.numbers else None

    def _label(self, job: Job) -> Label:
        return self.labels[job.seed % len(self.labels)]


sample_many = image_command(Sample)
