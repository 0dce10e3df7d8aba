"""What a command that makes images consists of: what it reads, and how that becomes the call of a pipeline."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, ClassVar

from latentdiff.cli.batch.plan import BatchPlan, Item, Job, make_batch_plan
from latentdiff.cli.options import add_model_options, add_output_options, add_sampling_options, check_sampling_flags
from latentdiff.cli.parser import Parser

NOTE = """Images are PNG files that carry the parameters of their generation (`latentdiff info IMAGE.png` shows them).
Under `accelerate launch -m latentdiff COMMAND ...` several processes share the work and make the same files."""


class Command:
    """Base of the commands that make images. Importing one imports no torch.

    Attributes:
        name: Of the command.
        help: A line about it.
        description: What its --help begins with.
        tasks: Of the models that it takes, as in the registry of pipelines.
        model: The default one, if any.
        per: What has images of its own for each seed.
        seed: The default one; None is random.
        sized: Whether the size of the result can be chosen.
        names: How files in an output folder are called.
        grid: What a grid of the images shows; None if there is none.
    """

    name: ClassVar[str]
    help: ClassVar[str]
    description: ClassVar[str]
    tasks: ClassVar[tuple[str, ...]]
    model: ClassVar[str | None] = None
    per: ClassVar[str] = "input"
    seed: ClassVar[str | None] = None
    sized: ClassVar[bool] = False
    names: ClassVar[str]
    grid: ClassVar[str | None] = None

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args

    @classmethod
    def add_parser(cls, commands: Any) -> None:
        """Add the command to the subparsers; what runs it is set in `commands`."""
        parser: Parser = commands.add_parser(cls.name, help=cls.help, description=f"{cls.description} {NOTE}")
        parser.set_defaults(parser=parser, command=cls)
        cls.add_options(parser)

    @classmethod
    def add_options(cls, parser: Parser) -> None:
        """Add its inputs, its own options and the shared ones."""
        cls.add_inputs(parser)
        add_model_options(parser, cls.model)
        sampling = add_sampling_options(parser, per=cls.per, seed=cls.seed, size=cls.sized)
        cls.add_own_options(parser, sampling)
        add_output_options(parser, cls.names, grid=cls.grid)

    @classmethod
    def add_inputs(cls, parser: Parser) -> None:
        """Add what the command reads."""

    @classmethod
    def add_own_options(cls, parser: Parser, sampling: Any) -> None:
        """Add options of guidance, or to the group `sampling`."""

    def plan(self) -> BatchPlan:
        """All that will be made; InputError for what can be told to be wrong without the model."""
        check_sampling_flags(self.args)
        return make_batch_plan(self.args, self.items(), self.file_name)

    def items(self) -> Sequence[Item]:
        """The inputs; every one is used with every seed."""
        raise NotImplementedError

    def file_name(self, number: int, item: Item, seed: int, several: bool) -> str:
        """The name of image `number` in the output folder; `several` if there is more than one seed."""
        return f"{number:05d}-{item.name}-seed{seed}.png"

    def read(self, job: Job) -> dict[str, Any]:
        """A job's arguments of the pipeline as far as they can be read without it; arrays are grouped by shape.

        Raises:
            InputError: If the input is not valid; the others are made nevertheless.
        """
        return {}

    def prepare(self, pipe: Any) -> Any:
        """The pipeline to call, of the loaded one; InputError if options don't fit it."""
        return pipe

    def fit(self, pipe: Any, job: Job, inputs: dict[str, Any]) -> dict[str, Any]:
        """What was read, checked against the model; raises as `read`."""
        return inputs

    def options(self) -> dict[str, Any]:
        """Further arguments of every call; those that aren't None are told in the PNG file, too."""
        return {}

    def record(self, job: Job) -> dict[str, Any]:
        """What a PNG file says of the job's input, under the names of the command's own arguments."""
        return {}

    def finish(self, job: Job, image: Any) -> Any:
        """What is written of an image."""
        return image
