"""`latentdiff generate`: images of prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from latentdiff.cli.batch.command import Arguments, ImageCommand
from latentdiff.cli.batch.make import image_command
from latentdiff.cli.batch.plan import Item, Job, slug
from latentdiff.cli.options import (
    Grid,
    Size,
    TextGuidanceOptions,
)
from latentdiff.errors import InputError
from latentdiff.reading import read_text

if TYPE_CHECKING:
    from latentdiff.pipelines.base import DiffusionPipeline


@dataclass(eq=False, kw_only=True)
class Generate(ImageCommand):
    """Make images of prompts.

    Each image depends on its prompt, its seed and the options alone. Files in a folder are called
    NUMBER-PROMPT-seedSEED.png.

    Attributes:
        prompt: What to show; none for an unconditional model.
        prompts: Read prompts from a UTF-8 file, one a line; # begins a comment.
    """

    prompt: Annotated[tuple[str, ...], Parameter(show_default=False)] = field(default=(), kw_only=False)
    prompts: Annotated[str | None, Parameter(metavar="FILE")] = None
    size: Size = None
    guidance: TextGuidanceOptions = TextGuidanceOptions()
    grid: Grid = False
    task = "text-to-image"
    takes = ("text-to-image", "unconditional")

    def __post_init__(self) -> None:
        self.texts = read_prompts(self.prompt, self.prompts)

    def items(self) -> Sequence[Item]:
        """An item for each prompt, one without any."""
        if not self.texts:
            return [Item("image", None)]
        from latentdiff.pipelines.prompts import as_list

        return [Item(slug(prompt), prompt) for prompt in as_list(self.texts)]

    def prepare(self, pipe: DiffusionPipeline) -> DiffusionPipeline:
        """The pipeline, if it takes prompts where some are given, and none else."""
        conditional = "text_encoder" in pipe.components
        if conditional and not self.texts:
            raise InputError(f"{self.model.model} makes images of prompts; give a PROMPT, or --prompts FILE")
        if self.texts and not conditional:
            raise InputError(f"{self.model.model} is unconditional and has no use for a prompt; leave it out")
        return pipe

    def read(self, job: Job) -> Arguments:
        """The prompt."""
        return {} if job.item.source is None else {"prompt": job.item.source}

    def record(self, job: Job) -> dict[str, object]:
        """The prompt."""
        return self.read(job)


generate = image_command(Generate)


def read_prompts(given: Sequence[str], file: str | None) -> list[str]:
    """The prompts of the command line, or of a file: one a line, blank lines and lines that begin with # left out."""
    if file is None:
        return list(given)
    if given:
        raise InputError(f"prompt {given[0]!r} and --prompts are both given; give one of them")
    try:
        lines = read_text(file).splitlines()
    except UnicodeDecodeError:
        raise InputError(f"{file} is not UTF-8 text; save it as UTF-8, one prompt a line") from None
    except OSError as error:
        raise InputError(f"{file} cannot be read ({error.strerror}); give a text file of one prompt a line") from None
    prompts = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if not prompts:
        raise InputError(f"{file} holds no prompt; write one a line")
    return prompts
