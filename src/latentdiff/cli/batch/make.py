"""From a command to files."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import get_type_hints

from latentdiff.cli import console
from latentdiff.cli.batch.command import ImageCommand
from latentdiff.cli.messages import flags_named, with_flags


def image_command(kind: Callable[..., ImageCommand]) -> Callable[..., None]:
    """The function of a command that makes images.

    Its parameters are the fields of the class `kind`; those that aren't `kw_only` are given by their place alone.
    """

    def command(*inputs: object, **options: object) -> None:
        make_images(kind(*inputs, **options))

    signature = inspect.signature(kind)
    parameters = [
        parameter.replace(kind=inspect.Parameter.POSITIONAL_ONLY)
        if parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
        else parameter
        for parameter in signature.parameters.values()
    ]
    command.__doc__, command.__annotations__ = kind.__doc__, get_type_hints(kind, include_extras=True)
    command.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return command


def make_images(command: ImageCommand) -> None:
    """Make and write a command's images; everything that can be checked is checked before the model is loaded."""
    quiet = command.output.quiet
    console.announce(f"loading {command.model.model}", quiet)
    with console.quiet_libraries(quiet) as complain, flags_named():
        plan = command.plan()
        from latentdiff.cli.batch.runner import Runner

        runner = Runner(command, plan, lambda fault: complain(with_flags(fault)))
        runner.run(lambda line: None if quiet else console.say(line))
