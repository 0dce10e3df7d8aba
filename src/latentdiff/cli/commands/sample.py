"""`latentdiff sample`: many images of the distribution that a model has learned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from latentdiff.cli.batch.plan import Item, Job
from latentdiff.cli.commands.base import Command
from latentdiff.cli.commands.labels import Label, check_labels, parse_labels
from latentdiff.cli.options import add_guidance_options
from latentdiff.cli.parser import Parser
from latentdiff.errors import InputError


class Sample(Command):
    """Seeds, with an unconditional or class-conditional model."""

    name = "sample"
    help = "make many images by seed, such as 50000 for FID"
    description = """Make the images of a range of seeds, such as the 50000 from which FID is computed. Those that exist
    are kept, so an interrupted run goes on. With a class-conditional model, seeds take the classes in turn."""
    tasks = ("unconditional", "class-to-image")
    per = ""
    seed = "0"
    sized = True
    names = "SEED.png, of six digits"

    @classmethod
    def add_inputs(cls, parser: Parser) -> None:
        """The classes to take."""
        parser.add_argument(
            "--label",
            nargs="+",
            metavar="CLASS",
            help='names, numbers, or ranges such as "0-999": seed s shows number s modulo their count (default: all)',
        )

    @classmethod
    def add_own_options(cls, parser: Parser, sampling: Any) -> None:
        """Guidance."""
        add_guidance_options(parser, "3 if the model has a null class, else 1; none if unconditional")

    def items(self) -> Sequence[Item]:
        """One, which has all seeds."""
        self.labels: list[Label] = parse_labels(self.args.label or [])
        return [Item("sample", None)]

    def file_name(self, number: int, item: Item, seed: int, several: bool) -> str:
        """The seed, by which several runs fill one folder."""
        return f"{seed:06d}.png"

    def prepare(self, pipe: Any) -> Any:
        """The pipeline, if it knows all classes; by default all but the null class are taken."""
        embedder = pipe.components.get("class_embedder")
        if embedder is None and self.labels:
            raise InputError(f"{self.args.model} is unconditional and has no use for --label; leave it out")
        if embedder is not None:
            config = embedder.config
            self.labels = self.labels or [n for n in range(config.num_classes) if n != config.null_class]
            check_labels(pipe, self.labels)
        return pipe

    def fit(self, pipe: Any, job: Job, inputs: dict[str, Any]) -> dict[str, Any]:
        """The seed's class, if the model has classes."""
        return {"class_labels": self._label(job)} if self.labels else {}

    def record(self, job: Job) -> dict[str, Any]:
        """The seed's class."""
        return {"label": self._label(job)} if self.labels else {}

    def _label(self, job: Job) -> Label:
        return self.labels[job.seed % len(self.labels)]
