"""`latentdiff class`: images of classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from latentdiff.cli.batch.plan import Item, Job, slug
from latentdiff.cli.commands.base import Command
from latentdiff.cli.commands.labels import check_labels, parse_labels
from latentdiff.cli.options import add_guidance_options
from latentdiff.cli.parser import Parser


class Classes(Command):
    """Classes, with a class-conditional model."""

    name = "class"
    help = "make images of classes"
    description = "Make images of classes. Each depends on its class, its seed and the options alone."
    tasks = ("class-to-image",)
    per = "class"
    sized = True
    names = "NUMBER-CLASS-seedSEED.png"
    grid = "a row for each class, a column for each seed"

    @classmethod
    def add_inputs(cls, parser: Parser) -> None:
        """The classes."""
        parser.add_argument("label", nargs="+", metavar="CLASS", help='a name, a number, or a range such as "0-999"')

    @classmethod
    def add_own_options(cls, parser: Parser, sampling: Any) -> None:
        """Guidance."""
        add_guidance_options(parser, "3 if the model has a null class, else 1")

    def items(self) -> Sequence[Item]:
        """An item for each class."""
        labels = parse_labels(self.args.label)
        return [Item(slug(label if isinstance(label, str) else f"class {label}"), label) for label in labels]

    def prepare(self, pipe: Any) -> Any:
        """The pipeline, if it knows all classes."""
        check_labels(pipe, [item.source for item in self.items()])
        return pipe

    def read(self, job: Job) -> dict[str, Any]:
        """The class."""
        return {"class_labels": job.item.source}

    def record(self, job: Job) -> dict[str, Any]:
        """The class."""
        return {"label": job.item.source}
