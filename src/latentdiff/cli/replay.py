"""The command that makes a generated image again."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from latentdiff.cli.commands.images import IMAGE_COMMANDS
from latentdiff.cli.parser import Parser
from latentdiff.registry import SCHEDULERS


def command(parameters: Mapping[str, Any]) -> str | None:
    """The shell command that makes an image of `parameters` again; None if this version has no such command.

    Input files have the names that they had in their folder.
    """
    name = str(parameters.get("command", "generate"))
    if name not in IMAGE_COMMANDS:
        return None
    parser = Parser()
    IMAGE_COMMANDS[name].add_options(parser)
    given = {key: value for key, value in parameters.items() if value is not None and value != []}
    if str(given.get("scheduler")) not in SCHEDULERS:
        given.pop("scheduler", None)  # the model's own, of another library
    if given.get("guidance_scale") == 1:
        given.pop("guidance_interval", None)
        given.pop("guidance_rescale", None)
    words, inputs = ["latentdiff", name], []
    for action in parser._actions:
        if action.dest not in given:
            continue
        value = given[action.dest]
        values = [str(item) for item in (value if isinstance(value, list) else [value])]
        if not action.option_strings:
            inputs = ["--", *values]
        elif action.nargs == 0:
            words.append(action.option_strings[-1])
        else:
            # A text that begins with a dash would be taken for an option.
            option = action.option_strings[-1]
            words += [f"{option}={values[0]}"] if values[0].startswith("-") else [option, *values]
    return shlex.join([*words, *inputs])
