"""Images that come with a prompt, where the model has a text encoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from latentdiff.cli.batch.command import Arguments
from latentdiff.cli.batch.files import FileCommand
from latentdiff.cli.batch.plan import Item, Job
from latentdiff.cli.options import TextGuidanceOptions
from latentdiff.errors import InputError

if TYPE_CHECKING:
    from latentdiff.pipelines.base import DiffusionPipeline

Prompt = Annotated[
    str | None,
    Parameter(metavar="TEXT", help='What to show, for a model that takes prompts; "" leaves it to the model.'),
]


@dataclass(eq=False, kw_only=True)
class PromptedCommand(FileCommand):
    """Base of the commands whose models may take a prompt beside each file."""

    prompt: Prompt = None
    guidance: TextGuidanceOptions = TextGuidanceOptions()

    def items(self) -> Sequence[Item]:
        """The files; the prompt is checked, too."""
        if self.prompt:
            from latentdiff.pipelines.prompts import as_list

            as_list(self.prompt)
        return super().items()

    def prepare(self, pipe: DiffusionPipeline) -> DiffusionPipeline:
        """The pipeline, if it takes a prompt where one is given, and only then."""
        needed = pipe.components.get("text_encoder") is not None
        if needed != (self.prompt is not None):
            text = "needs --prompt; say what to show" if needed else "has no use for --prompt; leave it out"
            raise InputError(f"{self.model.model} {text}")
        return pipe

    def read(self, job: Job) -> Arguments:
        """The file's part, and the prompt."""
        return {**super().read(job), **({} if self.prompt is None else {"prompt": self.prompt})}

    def record(self, job: Job) -> dict[str, object]:
        """The file's name, and the prompt."""
        return {**super().record(job), "prompt": self.prompt}
