"""The command that makes a generated image again."""

from __future__ import annotations

import shlex
from collections.abc import Mapping

from cyclopts import App

from latentdiff.cli.commands import IMAGE_COMMANDS
from latentdiff.registry import SCHEDULERS


def command(parameters: Mapping[str, object]) -> str | None:
    """The shell command that makes an image of `parameters` again; None if this version has no such command.

    Input files have the names that they had in their folder.
    """
    name = str(parameters.get("command", "generate"))
    if name not in IMAGE_COMMANDS:
        return None
    given = {key: value for key, value in parameters.items() if value is not None and value != []}
    if str(given.get("scheduler")) not in SCHEDULERS:
        given.pop("scheduler", None)  # the model's own, of another library
    if given.get("guidance_scale") == 1:
        given.pop("guidance_interval", None)
        given.pop("guidance_rescale", None)
    words, inputs = ["latentdiff", name], []
    app = App()
    app.command(IMAGE_COMMANDS[name][0], name=name)
    for argument in app[name].assemble_argument_collection():
        value = given.get(argument.field_info.name)
        if value is None or not argument.parse or argument.children:
            continue
        values = [str(item) for item in (value if isinstance(value, list) else [value])]
        if argument.field_info.is_positional_only:
            inputs = ["--", *values]
        elif argument.hint is bool:
            words.append(argument.name)
        else:
            # A text that begins with a dash would be taken for an option.
            words += [f"{argument.name}={values[0]}"] if values[0].startswith("-") else [argument.name, *values]
    return shlex.join([*words, *inputs])
