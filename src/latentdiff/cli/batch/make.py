"""From a command to files."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import make_dataclass
from typing import get_type_hints

from latentdiff.cli import console
from latentdiff.cli.batch.command import ImageCommand
from latentdiff.cli.messages import flags_named, with_flags
from latentdiff.cli.options import ModelOptions
from latentdiff.hub.find import builtin_models
from latentdiff.tasks import TASKS


def image_command(kind: type[ImageCommand]) -> Callable[..., None]:
    """The function of a command that makes images.

    Its parameters are the fields of the class `kind`; those that aren't `kw_only` are given by their place alone. The
    model is the built-in one of the command's task, if the package has it, unless another is given.
    """
    make: Callable[..., ImageCommand] = kind
    models = model_options(kind.task)
    default = {} if models is ModelOptions else {"model": models()}

    def command(*inputs: object, **options: object) -> None:
        make_images(make(*inputs, **(default | options)))

    signature = inspect.signature(kind)
    parameters = [
        parameter.replace(kind=inspect.Parameter.POSITIONAL_ONLY)
        if parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
        else parameter
        for parameter in signature.parameters.values()
        if parameter.name != "model"
    ]
    model = inspect.Parameter("model", inspect.Parameter.KEYWORD_ONLY, annotation=models)
    parameters.append(model.replace(default=default.get("model", model.default)))
    command.__doc__ = kind.__doc__
    command.__annotations__ = get_type_hints(kind, include_extras=True) | {"model": models}
    command.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return command


def model_options(task: str) -> Callable[..., ModelOptions]:
    """The class of options of a model for which the built-in one of a task is the default, if the package has it."""
    name = TASKS[task].builtin
    if name not in builtin_models():
        return ModelOptions
    fields = [("model", str, name)]
    place = {"__module__": ModelOptions.__module__}  # where the annotations have a meaning
    return make_dataclass("TaskModelOptions", fields, bases=(ModelOptions,), namespace=place, frozen=True, kw_only=True)


def make_images(command: ImageCommand) -> None:
    """Make and write a command's images; everything that can be checked is checked before the model is loaded."""
    quiet = command.output.quiet
    console.announce(f"loading {command.model.model}", quiet)
    with console.quiet_libraries(quiet) as complain, flags_named():
        plan = command.plan()
        from latentdiff.cli.batch.runner import Runner

        runner = Runner(command, plan, lambda fault: complain(with_flags(fault)))
        runner.run(lambda line: None if quiet else console.say(line))
