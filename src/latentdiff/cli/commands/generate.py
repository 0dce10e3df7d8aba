"""`latentdiff generate`: images of prompts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from latentdiff.cli.batch.plan import Item, Job, slug
from latentdiff.cli.commands.base import Command
from latentdiff.cli.options import add_guidance_options
from latentdiff.cli.parser import Parser
from latentdiff.errors import InputError

DEFAULT_MODEL = "builtin:emoji"


class Generate(Command):
    """Prompts, with a text model; none with an unconditional one."""

    name = "generate"
    help = "make images of prompts"
    description = "Make images of prompts. Each depends on its prompt, its seed and the options alone."
    tasks = ("text-to-image", "unconditional")
    model = DEFAULT_MODEL
    per = "prompt"
    sized = True
    names = "NUMBER-PROMPT-seedSEED.png"
    grid = "a row for each prompt, a column for each seed"

    @classmethod
    def add_inputs(cls, parser: Parser) -> None:
        """Prompts, or a file of them."""
        parser.add_argument("prompt", nargs="*", metavar="PROMPT", help="what to show; none for an unconditional model")
        parser.add_argument(
            "--prompts", metavar="FILE", help="read prompts from a UTF-8 file, one a line; # begins a comment"
        )

    @classmethod
    def add_own_options(cls, parser: Parser, sampling: Any) -> None:
        """Guidance."""
        add_guidance_options(parser, "5", negative_prompt=True)

    def items(self) -> Sequence[Item]:
        """An item for each prompt, one without any."""
        prompts = read_prompts(self.args.prompt, self.args.prompts)
        if not prompts:
            return [Item("image", None)]
        from latentdiff.pipelines.prompts import as_list

        return [Item(slug(prompt), prompt) for prompt in as_list(prompts)]

    def prepare(self, pipe: Any) -> Any:
        """The pipeline, if it takes prompts where some are given, and none else."""
        conditional = "text_encoder" in pipe.components
        given = bool(self.args.prompt or self.args.prompts)
        if conditional and not given:
            raise InputError(f"{self.args.model} makes images of prompts; give a PROMPT, or --prompts FILE")
        if given and not conditional:
            raise InputError(f"{self.args.model} is unconditional and has no use for a prompt; leave it out")
        return pipe

    def read(self, job: Job) -> dict[str, Any]:
        """The prompt."""
        return {} if job.item.source is None else {"prompt": job.item.source}

    def record(self, job: Job) -> dict[str, Any]:
        """The prompt."""
        return self.read(job)


def read_prompts(given: Sequence[str], file: str | None) -> list[str]:
    """The prompts of the command line, or of a file: one a line, blank lines and lines that begin with # left out."""
    if file is None:
        return list(given)
    if given:
        raise InputError(f"prompt {given[0]!r} and --prompts are both given; give one of them")
    try:
        lines = Path(file).read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise InputError(f"{file} is not UTF-8 text; save it as UTF-8, one prompt a line") from None
    except OSError as error:
        raise InputError(f"{file} cannot be read ({error.strerror}); give a text file of one prompt a line") from None
    prompts = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if not prompts:
        raise InputError(f"{file} holds no prompt; write one a line")
    return prompts
